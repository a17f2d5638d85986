//! What commands print for people: tables, with colours on a terminal alone, and what is waited for.

use std::io::{IsTerminal, Write, stderr, stdin, stdout};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";
/// To the beginning of the line, which is wiped.
const AGAIN: &str = "\r\x1b[K";
/// To the upper left corner of a screen that is wiped.
const WIPED: &str = "\x1b[H\x1b[2J";
/// So much of what is waited for fits on a line.
const WIDTH: usize = 100;

/// A row of a table: whether it tells of something good, and its columns.
pub struct Row {
    /// Whether all is well.
    pub good: bool,
    /// The columns, of which the first is a mark that is coloured.
    pub columns: Vec<String>,
}

/// Draws a table, in colours where standard output is a terminal.
pub fn table(heading: &[&str], rows: &[Row]) -> String {
    let coloured = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    draw(heading, rows, coloured)
}

/// Tells on a terminal what is waited for, in place of what was told before. Elsewhere it tells nothing.
pub fn progress(about: &str) {
    if stderr().is_terminal() {
        let about: String = printable(about).chars().take(WIDTH).collect();
        // Whether a terminal takes it changes nothing.
        let _ = write!(stderr(), "{AGAIN}{about}").and_then(|()| stderr().flush());
    }
}

/// Whether what is printed is for a person, who may watch it change.
pub fn is_watched() -> bool {
    stdout().is_terminal()
}

/// Shows a text in place of all that a terminal showed before, as many of its lines as fit.
///
/// # Errors
/// Standard output is gone.
pub fn show_instead(text: &str) -> std::io::Result<()> {
    let height = rustix::termios::tcgetwinsize(stdout()).map_or(usize::MAX, |size| usize::from(size.ws_row));
    let lines: Vec<&str> = text.lines().take(height.saturating_sub(1)).collect();
    let mut out = stdout().lock();
    writeln!(out, "{WIPED}{}", lines.join("\n")).and_then(|()| out.flush())
}

/// Asks a question, and answers the line that standard input has for it; none where it has no more.
pub fn ask(question: &str) -> Option<String> {
    let asked = write!(stderr(), "{}", printable(question)).and_then(|()| stderr().flush());
    let mut line = String::new();
    asked.and_then(|()| stdin().read_line(&mut line)).ok().filter(|read| *read > 0)?;
    Some(line.trim().to_owned())
}

fn draw(heading: &[&str], rows: &[Row], coloured: bool) -> String {
    let heading = heading.iter().map(|name| (*name).to_owned()).collect();
    let cleaned = rows.iter().map(|row| row.columns.iter().map(|column| printable(column)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(heading).chain(cleaned).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|t| t.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let marks = std::iter::once(None).chain(rows.iter().map(|row| Some(row.good)));
    let mut drawn = String::new();
    for (line, mark) in lines.iter().zip(marks) {
        let padded = line.iter().zip(&widths).enumerate().map(|(number, (text, width))| {
            let padded = format!("{text:width$}");
            match mark {
                Some(good) if coloured && number == 0 => {
                    format!("{}{padded}{PLAIN}", if good { GREEN } else { RED })
                }
                _ => padded,
            }
        });
        drawn.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        drawn.push('\n');
    }
    drawn
}

/// What manifests and hosts say must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_and_nothing_steers_the_terminal() {
        let row = |good, columns: [&str; 3]| Row { good, columns: columns.map(str::to_owned).to_vec() };
        let rows = [row(true, ["ok", "a", "fine"]), row(false, ["FAIL", "größer", "bad \x1b[2J"])];
        let drawn = draw(&["", "NAME", "MESSAGE"], &rows, false);
        assert_eq!(drawn, "      NAME    MESSAGE\nok    a       fine\nFAIL  größer  bad  [2J\n");
        let coloured = draw(&["", "NAME", "MESSAGE"], &rows, true);
        assert!(coloured.contains("\x1b[31mFAIL\x1b[0m  größer"), "{coloured}");
    }
}
