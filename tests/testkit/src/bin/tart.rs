//! The stand-in for Tart as a program: see `testkit::tart`.

fn main() -> std::process::ExitCode {
    testkit::tart::main()
}
