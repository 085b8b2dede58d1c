//! `google.protobuf.FieldMask`: in JSON one string, `"displayName,limits.topics"`.

use serde::de::Error as _;

/// The fields a message is about, as paths in `snake_case`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FieldMask {
    /// Dotted paths, e.g. `display_name`.
    #[prost(string, repeated, tag = "1")]
    pub paths: Vec<String>,
}

/// The path that stands for all fields.
const ALL: &str = "*";

impl FieldMask {
    /// From paths in either spelling, separated by commas. `*` stands for all fields; whether it may stand beside others is for who
    /// applies the mask. Empty parts are refused, an empty text is an empty mask.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let paths = text.split(',').map(|path| {
            let fine = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            (path == ALL || path.split('.').all(fine))
                .then(|| snake(path))
                .ok_or("must be field names separated by commas")
        });
        Ok(Self { paths: paths.collect::<Result<_, _>>()? })
    }
}

/// `displayName` to `display_name`.
fn snake(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// `display_name` to `displayName`.
fn camel(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut up = false;
    for c in path.chars() {
        match c {
            '_' => up = true,
            c => {
                out.push(if up { c.to_ascii_uppercase() } else { c });
                up = false;
            }
        }
    }
    out
}

impl serde::Serialize for FieldMask {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let paths: Vec<String> = self.paths.iter().map(|p| camel(p)).collect();
        serializer.serialize_str(&paths.join(","))
    }
}

impl<'de> serde::Deserialize<'de> for FieldMask {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&<std::borrow::Cow<'de, str>>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
