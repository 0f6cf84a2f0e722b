//! The tour: every scene with its serial console shown live. `demo [--list | --interactive] [SCENE ...]`

#[allow(dead_code, reason = "the tests use all of it")]
mod lab;

use std::process::ExitCode;

use lab::scenes::{Scene, TOUR, named};
use lab::trials::{self, Trial};
use lab::vm::Setup;
use lab::{Fault, Outcome, wireless};

/// What the tour consists of: boots that begin with the kernel, those that begin with U-Boot, and recovery without a cable.
enum Stop {
    Scene(&'static Scene),
    Trial(Trial),
    Wifi,
}

impl Stop {
    fn all() -> impl Iterator<Item = Stop> {
        TOUR.iter().map(Stop::Scene).chain(trials::TOUR.into_iter().map(Stop::Trial)).chain([Stop::Wifi])
    }

    fn named(name: &str) -> Outcome<Stop> {
        if let Some(stop) = Stop::all().find(|stop| stop.name() == name) {
            return Ok(stop);
        }
        // Not on the tour, but with disks of its own all the same.
        if let Some(trial) = trials::all().into_iter().find(|trial| trial.making.name == name) {
            return Ok(Stop::Trial(trial));
        }
        named(name).map(Stop::Scene).map_err(|_| {
            let names: Vec<&str> = Stop::all().map(|stop| stop.name()).collect();
            Fault::new(format!("there is no scene '{name}'; there are: {}", names.join(", ")))
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Stop::Scene(scene) => scene.name,
            Stop::Trial(trial) => trial.making.name,
            Stop::Wifi => "wifi",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Stop::Scene(scene) => scene.title,
            Stop::Trial(trial) => trial.title,
            Stop::Wifi => {
                "every deployment is destroyed and there is no cable: healed over Wi-Fi, WPA3, by itself"
            }
        }
    }

    fn play(&self) -> Outcome<String> {
        match self {
            Stop::Scene(scene) => scene.play(true),
            Stop::Trial(trial) => trial.play(true),
            Stop::Wifi => wireless::demo(),
        }
    }

    fn prepare(&self) -> Outcome<Setup> {
        match self {
            Stop::Scene(scene) => scene.prepare(false),
            Stop::Trial(trial) => Ok(trial.making.make()?.setup),
            Stop::Wifi => wireless::demo_setup(),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        for stop in Stop::all() {
            println!("{:<14}{}", stop.name(), stop.title());
        }
        return ExitCode::SUCCESS;
    }
    let interactive = arguments.iter().any(|a| a == "--interactive");
    let names: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let chosen: Outcome<Vec<Stop>> = if names.is_empty() {
        Ok(Stop::all().collect())
    } else {
        names.iter().map(|name| Stop::named(name)).collect()
    };
    match chosen {
        Ok(scenes) => tour(&scenes, interactive),
        Err(fault) => {
            eprintln!("demo: {fault}");
            ExitCode::from(2)
        }
    }
}

fn tour(stops: &[Stop], interactive: bool) -> ExitCode {
    let mut good = true;
    let mut lines = Vec::new();
    for stop in stops {
        println!("\n=== scene {}: {}\n", stop.name(), stop.title());
        let outcome = if interactive { hand_over(stop) } else { stop.play() };
        lines.push(match outcome {
            Ok(happened) => format!("scene {}: ok: {happened}", stop.name()),
            Err(fault) => {
                good = false;
                eprintln!("\n{fault}");
                let short = fault.to_string();
                let short = short.lines().next().unwrap_or_default().to_string();
                format!("scene {}: FAILED: {short}", stop.name())
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
fn hand_over(stop: &Stop) -> Outcome<String> {
    println!("The console is yours. Ctrl-a x ends the machine.\n");
    stop.prepare()?.interactive()?;
    Ok("the console was yours, and the machine has ended".to_string())
}
