{{/*
The operator's policy in CEL. Each line of it becomes a list with a value for each rule, in which the number of the rule that
holds finds its own. The last value stands for no rule at all and permits: what is refused then is the namespace.
*/}}

{{/* A line of all rules that is true or false: (dict "rules" … "line" …). */}}
{{- define "paddock.switch" -}}
{{- $default := get (include "paddock.defaultRule" . | fromYaml) .line -}}
{{- range .rules }}{{ hasKey . $.line | ternary (get . $.line) $default }}, {{ end -}}
true
{{- end }}

{{/* A line of all rules that is a list of globs: the regular expressions of what it lets in, or takes away. */}}
{{- define "paddock.globs" -}}
{{- $default := get (include "paddock.defaultRule" . | fromYaml) .line -}}
{{- range .rules -}}
{{- $globs := hasKey . $.line | ternary (get . $.line) $default -}}
{{- include "paddock.regex" (dict "globs" $globs "line" $.line "excluding" $.excluding) | toJson }}, {{ end -}}
{{- .excluding | ternary (include "paddock.nothing" .) "" | toJson -}}
{{- end }}

{{/* A regular expression that matches nothing. */}}
{{- define "paddock.nothing" -}}$.{{- end }}

{{/* What is taken away is so in upper case too; names of hosts have no case. */}}
{{- define "paddock.regex" -}}
{{- $found := list -}}
{{- range .globs -}}
{{- if eq (hasPrefix "!" .) $.excluding -}}
{{- range splitList "\n" (include "paddock.spellings" (dict "glob" (trimPrefix "!" .) "line" $.line)) -}}
{{- $regex := regexQuoteMeta . | replace "\\*" ".*" -}}
{{- $caseless := or $.excluding (and (eq $.line "endpoints") (not (hasPrefix "unix://" .))) -}}
{{- $found = append $found (printf (ternary "(?i:%s)" "%s" $caseless) $regex) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- printf "(?s)^(?:%s)$" ($found | join "|" | default (include "paddock.nothing" .)) -}}
{{- end }}

{{/* The spellings that a glob has, a line each. */}}
{{- define "paddock.spellings" -}}
{{- if eq .line "githubHosts" -}}
{{- regexReplaceAll "[.]+$" (lower .glob) "" -}}
{{- else -}}
{{- .glob -}}
{{- if eq .line "endpoints" -}}
{{- if hasPrefix "unix:///var/run/" .glob }}{{ printf "\nunix:///run/%s" (trimPrefix "unix:///var/run/" .glob) }}{{ end -}}
{{- if and (hasPrefix "ssh://" .glob) (not (contains "*" .glob)) }}{{ printf "\n%s" (trimSuffix ":22" .glob) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What a rule has that leaves a line out. */}}
{{- define "paddock.defaultRule" -}}
namespaces: ["*"]
githubHosts: ["*"]
insecureHttp: false
endpoints: ["unix:///var/run/docker.sock", "tcp://*", "ssh://*"]
hostSocket: false
privilegedSidecar: true
networks: ["*", "!host", "!container:*"]
controllerAwsIdentity: true
{{- end }}
