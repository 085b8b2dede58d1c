//! Lines of standard input, each of a bounded length.

use anyhow::{Result, bail};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

const BOM: &[u8] = b"\xef\xbb\xbf";
const BOMS_UTF16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// The next line that is not empty, without its end; `None` at the end of the input. `number` counts lines read. A mark
/// that says "UTF-8" at the beginning of the input is no part of its first line.
pub(crate) async fn line(
    input: &mut (impl AsyncBufRead + Unpin),
    bytes_max: usize,
    number: &mut u64,
) -> Result<Option<Vec<u8>>> {
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
                bail!("line {}: longer than {bytes_max} bytes; no record is so large", *number + 1);
            }
        }
        if line.is_empty() {
            return Ok(None);
        }
        if *number == 0 {
            if BOMS_UTF16.iter().any(|mark| line.starts_with(mark)) {
                bail!("the input is UTF-16; convert it to UTF-8 first, e.g. with iconv -f UTF-16 -t UTF-8");
            }
            line.drain(..if line.starts_with(BOM) { BOM.len() } else { 0 });
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(mut input: &[u8]) -> Result<Vec<(u64, String)>> {
        let (mut number, mut found) = (0, Vec::new());
        while let Some(text) = line(&mut input, 10, &mut number).await? {
            found.push((number, String::from_utf8(text)?));
        }
        Ok(found)
    }

    #[tokio::test]
    async fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let of = |text: &str| text.to_owned();
        let found = lines(b"\xef\xbb\xbf{}\r\n\n\xef\xbb\xbfb\n").await.expect("UTF-8");
        assert_eq!(found, [(1, of("{}")), (3, of("\u{feff}b"))]);
        assert_eq!(lines(b"\xef\xbb\xbf").await.expect("nothing"), []);
        for utf16 in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a"] {
            let error = lines(utf16).await.expect_err("UTF-16").to_string();
            assert!(error.contains("UTF-16") && error.contains("iconv"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_named_by_its_number() {
        let error = lines(b"a\n\nmore than ten bytes").await.expect_err("too long").to_string();
        assert!(error.starts_with("line 3: longer than 10 bytes"), "{error}");
    }
}
