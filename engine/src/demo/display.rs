//! How the demo shows itself: a screen, lines, or not at all.

use std::{io, time::Duration};

use super::{screen::Screen, snapshot::Snapshot};

/// The ways to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisplayKind {
    /// One screen of status, redrawn.
    Screen,
    /// A line per pipeline every few seconds, for logs.
    Lines,
    /// Nothing until the end.
    Silent,
}

/// A display in use.
pub(super) enum Display {
    Screen(Box<Screen>),
    Lines,
    Silent,
}

impl Display {
    pub(super) fn open(kind: DisplayKind) -> io::Result<Self> {
        Ok(match kind {
            DisplayKind::Screen => Self::Screen(Box::new(Screen::open()?)),
            DisplayKind::Lines => Self::Lines,
            DisplayKind::Silent => Self::Silent,
        })
    }

    /// From one picture to the next.
    pub(super) fn interval(&self) -> Duration {
        match self {
            Self::Screen(_) => Duration::from_millis(250),
            Self::Lines => Duration::from_secs(5),
            Self::Silent => Duration::from_secs(1),
        }
    }

    /// Whether its user wants no more.
    pub(super) fn is_closed(&mut self) -> io::Result<bool> {
        match self {
            Self::Screen(screen) => screen.is_closed(),
            Self::Lines | Self::Silent => Ok(false),
        }
    }

    pub(super) fn show(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        match self {
            Self::Screen(screen) => screen.draw(snapshot),
            Self::Lines => {
                print_lines(snapshot);
                Ok(())
            }
            Self::Silent => Ok(()),
        }
    }
}

fn print_lines(snapshot: &Snapshot) {
    let (p50, p99) = snapshot.freshness_ms.unwrap_or_default();
    println!(
        "{:>5} s  {} records in, {:.0}/s; fresh after {p50} ms, 99 of 100 after {p99} ms; {}",
        snapshot.elapsed.as_secs(),
        snapshot.sent,
        snapshot.per_second,
        snapshot.url
    );
    for (name, figures) in &snapshot.pipelines {
        let books = &figures.books;
        println!(
            "         {name:<12} counted {} filtered {} rejected {} late {} duplicates {} \
             withdrawals {} rows {} keys {}",
            books.counted,
            books.filtered,
            books.rejected,
            books.diverted,
            books.duplicates,
            books.withdrawals,
            figures.rows,
            figures.live_keys
        );
    }
}
