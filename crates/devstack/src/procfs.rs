//! Reads `/proc/<pid>/stat`: who is whose child, and since when a process lives.

use std::fs;

/// The fields of one process that supervision needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcStat {
    pub(crate) pid: u32,
    pub(crate) state: char,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    /// Clock ticks since boot: with the pid it names a process for good.
    pub(crate) start_time: u64,
}

pub(crate) fn stat(pid: u32) -> Option<ProcStat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The process, its group, and its direct children with whatever group they have. Scans all processes of the machine.
pub(crate) fn tree(leader: u32) -> Vec<ProcStat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .filter(|process| process.pid == leader || process.group == leader || process.parent == leader)
        .collect()
}

fn parse(line: &str) -> Option<ProcStat> {
    // The command name may hold spaces and parentheses: only the last closing one ends it.
    let (head, tail) = line.rsplit_once(") ")?;
    let pid = head.split(' ').next()?.parse().ok()?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    Some(ProcStat {
        pid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) b (c)) S 7 40 40 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 0 0";
        let expected = ProcStat { pid: 42, state: 'S', parent: 7, group: 40, start_time: 98765 };
        assert_eq!(parse(line), Some(expected));
    }

    #[test]
    fn this_process_is_found() {
        assert_eq!(stat(std::process::id()).map(|process| process.pid), Some(std::process::id()));
    }
}
