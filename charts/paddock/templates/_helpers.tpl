{{/* The name of all objects: the release's, with the chart's in it. */}}
{{- define "paddock.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "paddock" $name) }}{{ $name = printf "%s-paddock" $name }}{{ end -}}
{{- $name | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{/* What chooses the controller's pods. */}}
{{- define "paddock.selector" -}}
app.kubernetes.io/name: paddock
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "paddock.labels" -}}
app.kubernetes.io/name: paddock
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The image. A tag that YAML takes for a number is written as it stands there. */}}
{{- define "paddock.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if not (kindIs "string" $tag) }}{{ $tag = toJson $tag }}{{ end -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end }}

{{/* What a container needs that the strictest of the Pod Security Standards takes. */}}
{{- define "paddock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "paddock.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What the controller may do in the namespaces that it serves; the same as deploy/rbac-namespaced.yaml. */}}
{{- define "paddock.rules" -}}
# get, list, watch: what the fleets should be. patch: the finalizer, which is a part of the metadata.
- apiGroups: [paddock.dev]
  resources: [runnerscalesets]
  verbs: [get, list, watch, patch]
# Status is written to an object that is there, by a patch and nothing else.
- apiGroups: [paddock.dev]
  resources: [runnerscalesets/status]
  verbs: [patch]
# get: credentials, keys and CA bundles that a RunnerScaleSet names. list, watch: their metadata alone, so that a change
# takes effect at once.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get, list, watch]
# What a person would want to know. create: a new event. patch: the count of one that repeats.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* The cluster's identity is the UID of this namespace. */}}
{{- define "paddock.identityRule" -}}
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [kube-system]
  verbs: [get]
{{- end }}

{{/* Whom the rights are for. */}}
{{- define "paddock.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "paddock.name" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}
