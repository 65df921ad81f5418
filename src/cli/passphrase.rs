//! Where a passphrase comes from: a file or descriptor that is named, or the terminal, unseen.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use timed::node::wallet::file::{MAX_PASSPHRASE_BYTES, Passphrase};
use zeroize::Zeroizing;

/// What Ctrl-C sends.
const CTRL_C: u8 = 3;

/// The passphrase in a file (its first line; `-` is the standard input), or typed on the terminal.
pub(super) fn given(file: Option<&Path>, prompt: &str) -> anyhow::Result<Passphrase> {
    match file {
        Some(file) => from_file(file),
        None => typed(prompt),
    }
}

/// A new passphrase: on the terminal asked for twice.
pub(super) fn new(file: Option<&Path>) -> anyhow::Result<Passphrase> {
    if let Some(file) = file {
        return from_file(file);
    }
    let first = typed("New passphrase: ")?;
    if typed("The same again: ")? != first {
        bail!("the two are not the same: nothing was changed");
    }
    Ok(first)
}

fn from_file(file: &Path) -> anyhow::Result<Passphrase> {
    let shown = file.display();
    let line = match file == Path::new("-") {
        true => first_line(io::stdin().lock()),
        false => open_secret(file).and_then(first_line),
    };
    let line = line.with_context(|| format!("the passphrase in {shown} cannot be read"))?;
    Passphrase::new(line).with_context(|| format!("the first line of {shown}"))
}

/// Opens a file that only its owner may read, or a descriptor such as /dev/fd/3.
fn open_secret(file: &Path) -> io::Result<File> {
    let opened = File::open(file)?;
    let about = opened.metadata()?;
    let mode = about.permissions().mode() & 0o777;
    if about.is_file() && mode & 0o077 != 0 {
        let shown = file.display();
        let sentence = format!("it is open to others (mode {mode:04o}); run: chmod 600 {shown}");
        return Err(io::Error::other(sentence));
    }
    Ok(opened)
}

fn typed(prompt: &str) -> anyhow::Result<Passphrase> {
    let tty = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let Ok(tty) = tty else {
        bail!(
            "a passphrase is needed and there is no terminal to ask on: name a file with it \
             (--passphrase-file, --new-passphrase-file; - is the standard input)"
        );
    };
    let line = ask(&tty, prompt).context("the terminal cannot be read")?;
    if line.last() == Some(&CTRL_C) {
        bail!("interrupted: nothing was changed");
    }
    Ok(Passphrase::new(line)?)
}

/// Reads a line without showing it. Ctrl-C ends the line, so that the terminal is always set back.
fn ask(mut tty: &File, prompt: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let quiet = Quiet::on(tty)?;
    tty.write_all(prompt.as_bytes())?;
    let line = first_line(tty);
    drop(quiet);
    tty.write_all(b"\n")?;
    line
}

/// Up to the end of the line or of the input, without the former; one byte at a time, because
/// what follows is not ours.
fn first_line(mut from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Never grown: no copy is left behind in memory.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE_BYTES + 2));
    let mut byte = Zeroizing::new([0]);
    while line.len() < line.capacity() {
        match from.read(&mut byte[..]) {
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if byte[0] == CTRL_C {
            break;
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Quiet<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn on(tty: &'a File) -> io::Result<Self> {
        let before = tcgetattr(tty.as_fd())?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
        quiet.local_modes |= LocalModes::ICANON;
        quiet.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        tcsetattr(tty.as_fd(), OptionalActions::Flush, &quiet)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(self.tty.as_fd(), OptionalActions::Now, &self.before) {
            eprintln!("timed: the terminal is left silent ({error}): run: stty sane");
        }
    }
}

/// Where a command takes the wallet's passphrase from.
#[derive(clap::Args)]
pub(super) struct Source {
    /// A file whose first line is the wallet's passphrase; - is the standard input, /dev/fd/3 a
    /// descriptor [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// The two ends of a terminal: what a person types and sees, what a program reads and writes.
    fn terminal() -> (File, File) {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let mut options = OpenOptions::new();
        let program = options.read(true).write(true);
        let program = program.open(name.to_str().unwrap()).unwrap();
        (person.into(), program)
    }

    #[test]
    fn what_is_typed_is_not_shown_and_the_terminal_is_set_back() {
        for (typed, read) in [(&b"secret\n"[..], &b"secret"[..]), (b"no\x03", b"no\x03")] {
            let (mut person, program) = terminal();
            let echoes = || tcgetattr(&program).unwrap().local_modes;
            let before = echoes();
            assert!(before.contains(LocalModes::ECHO));
            let answer = std::thread::scope(|scope| {
                let asking = scope.spawn(|| ask(&program, "Say: ").unwrap());
                // The prompt comes when nothing is shown any more.
                let mut prompt = [0; 5];
                person.read_exact(&mut prompt).unwrap();
                assert_eq!(&prompt, b"Say: ");
                person.write_all(typed).unwrap();
                asking.join().unwrap()
            });
            assert_eq!(*answer, read);
            assert_eq!(echoes(), before);
            let mut seen = [0; 2];
            person.read_exact(&mut seen).unwrap();
            assert_eq!(&seen, b"\r\n");
        }
    }

    #[test]
    fn a_file_gives_its_first_line_and_must_be_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            from_file(&path)
        };
        let long = vec![b'x'; MAX_PASSPHRASE_BYTES + 1];
        let same = |content: &[u8], line: &[u8]| {
            read(content).unwrap() == Passphrase::new(Zeroizing::new(line.to_vec())).unwrap()
        };
        assert!(same(b"a b\n", b"a b") && same(b"a b\r\nrest", b"a b") && same(b"a b", b"a b"));
        assert!(same(&long[1..], &long[1..]));
        for refused in [&b""[..], b"\n", b"\r\n", &long] {
            let error = format!("{:#}", read(refused).err().unwrap());
            assert!(
                error.contains("a passphrase has 1 to 1024 bytes"),
                "{error}"
            );
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = format!("{:#}", from_file(&path).err().unwrap());
        assert!(error.contains("chmod 600"), "{error}");
    }
}
