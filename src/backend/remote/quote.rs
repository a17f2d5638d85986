//! One word of a shell's command line, whatever is in it.

/// Quotes a text so that a shell takes it for one word and nothing else. Single quotes keep everything as it is in every
/// shell, but for the quote itself; backslashes are left outside of them, as fish gives them a meaning within.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for character in text.chars() {
        match character {
            '\'' => quoted.push_str(r"'\''"),
            '\\' => quoted.push_str(r"'\\'"),
            // No argument of any program can hold it.
            '\0' => {}
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    const HOSTILE: [&str; 14] = [
        "",
        "plain",
        "a b",
        "'",
        "''",
        "'; touch /tmp/planted; '",
        "$(touch /tmp/planted)",
        "`touch /tmp/planted`",
        "a\nb\n",
        "\\",
        "\\'",
        "'\\''$HOME\\",
        "*?[a]{1,2}~!#&|;<>()\"\t",
        "-n é \u{1f600} --",
    ];

    /// What a shell makes of the words of a line.
    fn words(shell: &str, line: &str) -> Vec<u8> {
        let line = format!("printf '%s\\0' {line}");
        Command::new(shell).args(["-c", &line]).output().unwrap().stdout
    }

    fn expected(texts: &[&str]) -> Vec<u8> {
        texts.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect()
    }

    #[test]
    fn a_real_shell_sees_each_value_as_it_is() {
        let line: Vec<String> = HOSTILE.iter().map(|text| quote(text)).collect();
        for shell in ["sh", "bash"] {
            assert_eq!(words(shell, &line.join(" ")), expected(&HOSTILE), "{shell}");
        }
    }

    #[test]
    fn within_single_quotes_there_is_never_a_backslash() {
        for text in HOSTILE {
            let quoted = quote(text);
            let (mut within, mut characters) = (false, quoted.chars());
            while let Some(character) = characters.next() {
                match character {
                    '\'' => within = !within,
                    '\\' => {
                        assert!(!within, "{quoted}");
                        characters.next();
                    }
                    _ => {}
                }
            }
            assert!(!within, "{quoted}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_text_is_one_word(text in "[^\0]{0,40}") {
            prop_assert_eq!(words("sh", &quote(&text)), expected(&[&text]));
        }
    }
}
