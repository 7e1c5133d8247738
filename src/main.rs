//! Wires only.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    signoff::cli::main()
}
