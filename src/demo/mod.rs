//! `signoff demo`: the main job, played on a mock manager with mock schedulers and real agent processes. Each verdict is read
//! from the manager's table, never from the agent's words.

use std::time::{Duration, Instant};

use clap::Args;

use crate::exit::Exit;

mod scenes;
mod stage;
mod view;

use scenes::SCENES;
use stage::Stage;
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
}

/// Plays all scenes. `Done` if each ended as promised.
pub async fn run(args: DemoArgs) -> Exit {
    if let Some(name) = &args.sabotage
        && !SCENES.iter().any(|scene| scene.name == name)
    {
        let names: Vec<&str> = SCENES.iter().map(|scene| scene.name).collect();
        eprintln!("--break: {name:?} is no scene; use one of {}", names.join(", "));
        return Exit::Usage;
    }
    let began = Instant::now();
    let view = View::new(began);
    let mut stage = match Stage::set(view).await {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("the demo can't start: {error}");
            return Exit::Internal;
        }
    };
    let mut failed = 0;
    for (number, scene) in SCENES.iter().enumerate() {
        stage.view.scene(&format!("{} of {}: {}", number + 1, SCENES.len(), scene.title));
        let broken = args.sabotage.as_deref() == Some(scene.name);
        let outcome =
            match tokio::time::timeout(Duration::from_secs(20), (scene.play)(&mut stage, broken)).await {
                Ok(outcome) => outcome,
                Err(_) => Err("it did not come to an end".to_owned()),
            };
        stage.clear().await;
        match outcome {
            Ok(promise) => stage.view.verdict(true, &promise),
            Err(why) => {
                failed += 1;
                stage.view.verdict(false, &why);
            }
        }
    }
    let played = SCENES.len();
    let seconds = began.elapsed().as_secs_f32();
    stage.view.end(&format!("{} of {played} scenes ended as promised, in {seconds:.1} s.", played - failed));
    if args.keep
        && let Err(error) = stage.keep().await
    {
        eprintln!("can't go on: {error}");
        return Exit::Internal;
    }
    if failed == 0 { Exit::Done } else { Exit::CheckFailed }
}
