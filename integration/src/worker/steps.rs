//! Stops at the library's step points, and the record of those passed.
//!
//! The thread that stops reads the next line of stdin itself: a process that
//! is stopped understands `go` and nothing else.

use std::process;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Result, ensure};
use wal_core::sync::Unpoison;
use wal_core::testing::{Point, set_hook};

use super::standard_streams::{answer, read_command};
use super::wire::{Answer, Command};

static STEPS: Mutex<Steps> = Mutex::new(Steps {
    passed: None,
    armed: None,
});

struct Steps {
    /// The points passed since the record began.
    passed: Option<Vec<&'static str>>,
    armed: Option<Armed>,
}

struct Armed {
    point: Point,
    /// How often it is passed yet, the stop included.
    left: u32,
    pass: u32,
}

/// Makes the library call us at every point.
pub(super) fn install() {
    // Fails only if it is installed already.
    let _ = set_hook(Box::new(pass));
}

pub(super) fn arm(point: &str, pass: u32) -> Result<()> {
    let found = Point::ALL.iter().find(|known| known.name() == point);
    let Some(&point) = found else {
        anyhow::bail!("`{point}` is no step point");
    };
    ensure!(pass > 0, "passes are counted from 1");
    let left = pass;
    steps().armed = Some(Armed { point, left, pass });
    Ok(())
}

pub(super) fn record() {
    steps().passed = Some(Vec::new());
}

pub(super) fn passed() -> Vec<&'static str> {
    steps().passed.take().unwrap_or_default()
}

fn steps() -> MutexGuard<'static, Steps> {
    STEPS.lock().unpoison()
}

fn pass(point: Point) {
    let mut steps = steps();
    if let Some(passed) = &mut steps.passed {
        passed.push(point.name());
    }
    let Some(armed) = steps.armed.as_mut().filter(|armed| armed.point == point) else {
        return;
    };
    armed.left -= 1;
    if armed.left > 0 {
        return;
    }
    let pass = armed.pass;
    steps.armed = None;
    drop(steps);
    stop(point, pass);
}

fn stop(point: Point, pass: u32) {
    let stopped = Answer::Stopped {
        point: point.name().to_owned(),
        pass,
    };
    let told = answer(&stopped).and_then(|()| read_command());
    if !matches!(told, Ok(Some(Command::Go))) {
        // Whoever holds the other end is gone, or does not know that we are
        // stopped; going on would be wrong either way.
        process::exit(1);
    }
}
