//! Wires only: parse, log, run, exit.

fn main() -> std::process::ExitCode {
    signoff::exit::Exit::Internal.into()
}
