//! `signoff demo`: the main job, played on a mock manager with mock schedulers and real agent processes. Each verdict is read
//! from the manager's table, never from the agent's words.

use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::exit::Exit;

mod parts;
mod scenes;
mod stage;
mod view;

pub use parts::Part;
use scenes::{SCENES, Scene};
use stage::{Failure, Stage};
use view::View;

/// What `signoff demo` takes.
#[derive(Debug, Clone, Default, Args)]
pub struct DemoArgs {
    /// Leave the mock manager running at the end, with a scheduler and its agent, until interrupted
    #[arg(long)]
    pub keep: bool,
    /// Sabotage a scene, to see that the demo can fail
    #[arg(long = "break", value_name = "SCENE", hide = true)]
    pub sabotage: Option<String>,
    /// Be one of the demo's own processes
    #[arg(long, value_enum, hide = true, requires = "of")]
    pub part: Option<Part>,
    /// The demo's process id
    #[arg(long, value_name = "PID", hide = true, requires = "part")]
    pub of: Option<u32>,
}

/// How far the demo has come.
#[derive(Debug, Default)]
struct Tally {
    played: usize,
    failed: usize,
}

/// Plays all scenes. `Done` if each ended as promised; interrupted before the last one, it is `CheckFailed` too.
pub async fn run(args: DemoArgs) -> Exit {
    if let Some(part) = args.part {
        return part.play(args.of);
    }
    if let Some(name) = &args.sabotage
        && !SCENES.iter().any(|scene| scene.name == name)
    {
        let names = SCENES.map(|scene| scene.name).join(", ");
        return crate::cli::usage(&format!("--break: {name:?} is no scene; use one of {names}"));
    }
    match put_on(&args).await {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("error: the demo can't go on: {error}");
            Exit::Internal
        }
    }
}

async fn put_on(args: &DemoArgs) -> Result<Exit, Failure> {
    let mut signals = signal_hook_tokio::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let view = View::new(Instant::now());
    let mut stage = Stage::set(view.clone()).await?;
    let mut tally = Tally::default();
    let played = tokio::select! {
        _ = signals.next() => Ok(()),
        played = play(&mut stage, args, &mut tally) => played,
    };
    stage.strike().await;
    if tally.played < SCENES.len() {
        view.end(&format!("Interrupted: {} of {} scenes were played.", tally.played, SCENES.len()));
        return Ok(Exit::CheckFailed);
    }
    played?;
    Ok(if tally.failed == 0 { Exit::Done } else { Exit::CheckFailed })
}

/// All scenes, and with `--keep` what stays: then it doesn't end by itself.
async fn play(stage: &mut Stage, args: &DemoArgs, tally: &mut Tally) -> Result<(), Failure> {
    let began = Instant::now();
    for (number, scene) in SCENES.iter().enumerate() {
        stage.view.scene(&format!("{} of {}: {}", number + 1, SCENES.len(), scene.title));
        let broken = args.sabotage.as_deref() == Some(scene.name);
        let outcome = act(scene, stage, broken).await;
        stage.clear().await;
        stage.view.verdict(&outcome);
        tally.played += 1;
        tally.failed += usize::from(outcome.is_err());
    }
    stage.view.end(&format!(
        "{} of {} scenes ended as promised, in {:.1} s.",
        SCENES.len() - tally.failed,
        SCENES.len(),
        began.elapsed().as_secs_f32(),
    ));
    if args.keep { stage.keep().await } else { Ok(()) }
}

async fn act(scene: &Scene, stage: &mut Stage, broken: bool) -> Result<String, String> {
    let playing = (scene.play)(stage, broken);
    let outcome = tokio::time::timeout(Duration::from_secs(20), playing).await;
    let outcome = outcome.unwrap_or_else(|_| Err("it did not come to an end".to_owned()));
    outcome.map_err(|why| format!("{} ({why})", scene.name))
}
