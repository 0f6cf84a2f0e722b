//! The tour: every scene with its serial console shown live. `demo [--list | --interactive] [SCENE ...]`

#[allow(dead_code, reason = "the tests use all of it")]
mod lab;

use std::process::ExitCode;

use lab::Outcome;
use lab::scenes::{Scene, TOUR, named};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        for scene in &TOUR {
            println!("{:<14}{}", scene.name, scene.title);
        }
        return ExitCode::SUCCESS;
    }
    let interactive = arguments.iter().any(|a| a == "--interactive");
    let names: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let chosen: Outcome<Vec<&Scene>> = if names.is_empty() {
        Ok(TOUR.iter().collect())
    } else {
        names.iter().map(|name| named(name)).collect()
    };
    match chosen {
        Ok(scenes) => tour(&scenes, interactive),
        Err(fault) => {
            eprintln!("demo: {fault}");
            ExitCode::from(2)
        }
    }
}

fn tour(scenes: &[&Scene], interactive: bool) -> ExitCode {
    let mut good = true;
    let mut lines = Vec::new();
    for scene in scenes {
        println!("\n=== scene {}: {}\n", scene.name, scene.title);
        let outcome = if interactive { hand_over(scene) } else { scene.play(true) };
        lines.push(match outcome {
            Ok(happened) => format!("scene {}: ok: {happened}", scene.name),
            Err(fault) => {
                good = false;
                eprintln!("\n{fault}");
                let short = fault.to_string();
                let short = short.lines().next().unwrap_or_default().to_string();
                format!("scene {}: FAILED: {short}", scene.name)
            }
        });
    }
    println!("\n");
    for line in lines {
        println!("{line}");
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The console belongs to the person; what they did is not judged.
fn hand_over(scene: &Scene) -> Outcome<String> {
    println!("The console is yours. Ctrl-a x ends the machine.\n");
    scene.prepare(false)?.interactive()?;
    Ok("the console was yours, and the machine has ended".to_string())
}
