//! The status screen of a terminal.

use std::{io, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Style, Stylize},
    text::{Line, Text},
    widgets::{Block, Cell, Padding, Paragraph, Row, Table, Wrap},
};

use super::snapshot::Snapshot;

const COLUMNS: [&str; 11] = [
    "pipeline",
    "counted",
    "filtered",
    "rejected",
    "late",
    "copies",
    "withdrawn",
    "rows",
    "keys",
    "watermark",
    "mark",
];

/// The terminal while the demo has it; given back when dropped.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { terminal: ratatui::try_init()? })
    }

    /// Whether somebody pressed q, Escape or Ctrl-C.
    pub(super) fn is_closed(&self) -> io::Result<bool> {
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()? {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                    KeyCode::Char('c') if control => return Ok(true),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    pub(super) fn draw(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.terminal.draw(|frame| draw(frame, snapshot)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn draw(frame: &mut Frame<'_>, snapshot: &Snapshot) {
    let pipelines = u16::try_from(snapshot.pipelines.len()).unwrap_or(u16::MAX);
    let areas = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(pipelines.saturating_add(3)),
        Constraint::Min(8),
    ])
    .split(frame.area());
    frame.render_widget(
        Paragraph::new(summary(snapshot)).block(titled(" citycell demo ")),
        areas[0],
    );
    frame.render_widget(table(snapshot).block(titled(" pipelines ")), areas[1]);
    let query = Paragraph::new(query(snapshot)).wrap(Wrap { trim: false });
    frame.render_widget(query.block(titled(" ask it ")), areas[2]);
}

fn titled(title: &str) -> Block<'_> {
    Block::bordered().title(title.bold()).padding(Padding::horizontal(1))
}

fn summary(snapshot: &Snapshot) -> Text<'static> {
    let freshness = match snapshot.freshness_ms {
        Some((p50, p99)) => format!("{p50} ms, 99 of 100 after {p99} ms"),
        None => "not known yet".to_owned(),
    };
    let seconds = snapshot.elapsed.as_secs();
    Text::from(vec![
        Line::from(format!(
            "a simulated district, {}:{:02} min    {} records in, {:.0}/s",
            seconds / 60,
            seconds % 60,
            snapshot.sent,
            snapshot.per_second
        )),
        Line::from(format!("from broker to committed: {freshness}    q stops")),
    ])
}

fn table(snapshot: &Snapshot) -> Table<'static> {
    let rows = snapshot.pipelines.iter().map(|(name, figures)| {
        let books = &figures.books;
        let numbers = [
            books.counted,
            books.filtered,
            books.rejected,
            books.diverted,
            books.duplicates,
            books.withdrawals,
            figures.rows,
            figures.live_keys.unsigned_abs(),
        ];
        let times = [figures.watermark_ms, i64::try_from(figures.marked_epoch).unwrap_or(0)];
        let numbers = numbers.iter().map(|number| right(number.to_string()));
        let times = times.map(|time_ms| right(clock(time_ms)));
        Row::new([Cell::from(name.clone())].into_iter().chain(numbers).chain(times))
    });
    let widths =
        [Constraint::Length(12)].into_iter().chain([Constraint::Length(9); COLUMNS.len() - 1]);
    let header = COLUMNS.iter().enumerate().map(|(index, name)| match index {
        0 => Cell::from(*name),
        _ => right((*name).to_owned()),
    });
    Table::new(rows.collect::<Vec<_>>(), widths).header(Row::new(header).style(Style::new().dim()))
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Text::from(text).right_aligned())
}

/// The time of day on this machine; a dash before anything was reached.
fn clock(time_ms: i64) -> String {
    match Timestamp::from_millisecond(time_ms) {
        Ok(time) if time_ms > 0 => {
            time.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
        }
        _ => "-".to_owned(),
    }
}

fn query(snapshot: &Snapshot) -> Text<'static> {
    let url = &snapshot.url;
    Text::from(vec![
        Line::from("The ten fullest cells of the last minute that has any people:".dim()),
        Line::from(format!("curl -s '{url}/?database=city&user=reader' --data-binary \\")),
        Line::from("  \"SELECT cell, sum(people) AS people, max(density) AS density"),
        Line::from("   FROM crowd_flow WHERE level = 'cell' AND window_start ="),
        Line::from("   (SELECT max(window_start) FROM crowd_flow WHERE level = 'cell')"),
        Line::from("   GROUP BY cell ORDER BY people DESC LIMIT 10 FORMAT PrettyCompact\""),
    ])
}
