//! Path templates of `google.api.http`: literals, `*`, `{field=pattern}` and a `:verb` at the end. No `**`.

/// A parsed template.
pub(crate) struct Template {
    pub(crate) text: String,
    /// `None` is `*`.
    pub(crate) segments: Vec<Option<String>>,
    pub(crate) vars: Vec<Var>,
    pub(crate) verb: Option<String>,
}

/// A variable and the segments of its value.
pub(crate) struct Var {
    pub(crate) field: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.strip_prefix('/').ok_or_else(|| format!("{text} does not begin with /"))?;
        let mut verb = None;
        if let Some((front, v)) = rest.rsplit_once(':')
            && !v.contains(['/', '}'])
        {
            (rest, verb) = (front, Some(v.to_owned()));
        }
        let (mut segments, mut vars) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('{') {
                let (var, after) = inner.split_once('}').ok_or_else(|| format!("{text}: no }}"))?;
                let (field, pattern) = var.split_once('=').unwrap_or((var, "*"));
                let start = segments.len();
                for part in pattern.split('/') {
                    segments.push(segment(part).map_err(|e| format!("{text}: {e}"))?);
                }
                vars.push(Var { field: field.into(), start, end: segments.len() });
                rest = after;
            } else {
                let (part, _) = rest.split_once('/').unwrap_or((rest, ""));
                segments.push(segment(part).map_err(|e| format!("{text}: {e}"))?);
                rest = &rest[part.len()..];
            }
            rest = match rest.strip_prefix('/') {
                Some("") => return Err(format!("{text} ends with /")),
                Some(more) => more,
                None if rest.is_empty() => rest,
                None => return Err(format!("{text}: a segment goes on after a variable")),
            };
        }
        Ok(Self { text: text.into(), segments, vars, verb })
    }

    /// Whether one path can match both equally well.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let either = |(a, b): (&Option<String>, &Option<String>)| a.is_none() || b.is_none() || a == b;
        self.verb == other.verb
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(either)
    }
}

fn segment(part: &str) -> Result<Option<String>, String> {
    match part {
        "*" => Ok(None),
        _ if !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') => {
            Ok(Some(part.into()))
        }
        _ => Err(format!("{part:?} is not a segment")),
    }
}
