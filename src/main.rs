//! Wires only: parse, log, run, exit.

fn main() -> std::process::ExitCode {
    signoff::cli::main()
}
