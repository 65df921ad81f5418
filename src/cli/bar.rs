//! The last line of a terminal on which a node runs, as long as it catches up: a bar, how far, how
//! long. Log lines go above it. Where the standard error is no terminal there is no bar, and the log
//! tells of the progress instead.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use timed::sync::SyncStatus;
use tracing_subscriber::fmt::MakeWriter;

/// So many blocks are worth a bar.
const SHOWN_FROM_BLOCKS: u64 = 10;

/// The line is cut at the terminal's width.
const TEMPLATE: &str = "[{bar:24}] {percent} % {wide_msg}";

/// A cheap handle to the bar.
#[derive(Clone)]
pub(super) struct Bar {
    /// Finished and cleared while there is nothing to show.
    bar: ProgressBar,
    drawn: bool,
}

impl Bar {
    /// On the standard error, if that is a terminal.
    pub(super) fn on_terminal() -> Self {
        Self::new(match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        })
    }

    /// Never shown.
    pub(super) fn hidden() -> Self {
        Self::new(ProgressDrawTarget::hidden())
    }

    fn new(target: ProgressDrawTarget) -> Self {
        let drawn = !target.is_hidden();
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is well formed");
        bar.set_style(style.progress_chars("#>-"));
        bar.finish_and_clear();
        Self { bar, drawn }
    }

    /// Whether there is a terminal to draw on.
    pub(super) fn is_drawn(&self) -> bool {
        self.drawn
    }

    /// Shows how far sync is; nothing when little is missing.
    pub(super) fn show(&self, status: &SyncStatus) {
        if !status.syncing || status.behind() < SHOWN_FROM_BLOCKS {
            self.clear();
            return;
        }
        if self.bar.is_finished() {
            self.bar.reset();
        }
        self.bar.set_length(status.target.0);
        self.bar.set_position(status.height.0);
        self.bar.set_message(status.sentence());
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        if !self.bar.is_finished() {
            self.bar.finish_and_clear();
        }
    }
}

/// The standard error, above the bar.
pub(super) struct LogWriter<'a>(&'a Bar);

impl Write for LogWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.bar.suspend(|| io::stderr().write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.bar.suspend(|| io::stderr().write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Bar {
    type Writer = LogWriter<'a>;

    fn make_writer(&'a self) -> LogWriter<'a> {
        LogWriter(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;
    use timed::types::Height;

    use super::*;

    /// One line of a terminal 200 columns wide.
    #[derive(Clone, Debug, Default)]
    struct Line(Arc<Mutex<String>>);

    impl Line {
        fn text(&self) -> String {
            self.0.lock().unwrap().trim_end().to_owned()
        }
    }

    impl TermLike for Line {
        fn width(&self) -> u16 {
            200
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn behind(height: u64) -> SyncStatus {
        SyncStatus {
            height: Height(height),
            target: Height(1_000),
            syncing: true,
            peers: vec![std::net::IpAddr::from([127, 0, 0, 2]).into()],
            ..SyncStatus::default()
        }
    }

    #[test]
    fn the_bar_is_there_while_much_is_missing_and_never_under_a_log_line() {
        let line = Line::default();
        let target = ProgressDrawTarget::term_like(Box::new(line.clone()));
        let bar = Bar::new(target);
        assert!(bar.is_drawn());
        assert_eq!(line.text(), "");
        for _ in 0..2 {
            bar.show(&behind(250));
            let shown = "[######>-----------------] 25 % behind by 750 blocks at height 250, \
                         fetching from 127.0.0.2";
            assert_eq!(line.text(), shown);
            bar.bar.suspend(|| assert_eq!(line.text(), ""));
            assert_eq!(line.text(), shown);
            bar.show(&behind(991));
            assert_eq!(line.text(), "");
            // A log line does not bring it back.
            bar.bar.suspend(|| assert_eq!(line.text(), ""));
            assert_eq!(line.text(), "");
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_drawn() {
        assert!(!Bar::hidden().is_drawn());
    }
}
