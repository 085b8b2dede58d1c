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

/// Whether all of them are stopped. Who started a child by `vfork` sleeps until the child runs its program, and cannot be stopped
/// before: with the child stopped it moves as little.
pub(crate) fn stands_still(tree: &[ProcStat]) -> bool {
    let has_stopped_child = |of: u32| tree.iter().any(|child| child.parent == of && child.state == 'T');
    tree.iter().all(|process| match process.state {
        'T' | 't' | 'Z' => true,
        'D' => has_stopped_child(process.pid),
        _ => false,
    })
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
    fn a_parent_that_waits_for_its_stopped_child_stands_still() {
        let process = |pid, parent, state| ProcStat { pid, state, parent, group: 1, start_time: 0 };
        assert!(stands_still(&[process(1, 0, 'T'), process(2, 1, 'D'), process(3, 2, 'T'), process(4, 1, 'Z')]));
        assert!(!stands_still(&[process(1, 0, 'T'), process(2, 1, 'D')]), "it waits for something else");
        assert!(!stands_still(&[process(1, 0, 'S'), process(2, 1, 'T')]));
    }

    #[test]
    fn this_process_is_found() {
        assert_eq!(stat(std::process::id()).map(|process| process.pid), Some(std::process::id()));
    }
}
