//! Lines of standard input, each of a bounded length.

use anyhow::{Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader, Stdin};

/// The next line that is not empty, without its end; `None` at the end of the input. `number` counts lines read.
pub(crate) async fn line(input: &mut BufReader<Stdin>, bytes_max: usize, number: &mut u64) -> Result<Option<Vec<u8>>> {
    loop {
        let mut line = Vec::new();
        loop {
            let buffer = input.fill_buf().await?;
            if buffer.is_empty() {
                break;
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let take = end.map_or(buffer.len(), |end| end + 1);
            line.extend_from_slice(&buffer[..take]);
            input.consume(take);
            if end.is_some() {
                break;
            }
            if line.len() > bytes_max {
                bail!("line {}: longer than {bytes_max} bytes", *number + 1);
            }
        }
        if line.is_empty() {
            return Ok(None);
        }
        *number += 1;
        while matches!(line.last(), Some(b'\n' | b'\r')) {
            line.pop();
        }
        if !line.is_empty() {
            return Ok(Some(line));
        }
    }
}
