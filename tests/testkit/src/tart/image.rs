//! Names of images in a registry: `host/namespace:tag` and `host/namespace@sha256:…`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::failure::Failure;

/// The name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageName {
    pub host: String,
    namespace: String,
    reference: Reference,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reference {
    Tag(String),
    Digest(String),
}

impl ImageName {
    /// `None` for the name of a local VM, which has no slash.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, rest) = text.split_once('/')?;
        let (namespace, reference) = if let Some((namespace, digest)) = rest.split_once('@') {
            (namespace, Reference::Digest(digest.to_owned()))
        } else if let Some((namespace, tag)) = rest.rsplit_once(':') {
            (namespace, Reference::Tag(tag.to_owned()))
        } else {
            (rest, Reference::Tag("latest".to_owned()))
        };
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        let whole = plain(host) && namespace.split('/').all(plain) && !reference.text().is_empty();
        whole.then(|| Self { host: host.to_owned(), namespace: namespace.to_owned(), reference })
    }

    /// The same, or the error that Tart shows.
    pub fn require(text: &str) -> Result<Self, Failure> {
        Self::parse(text).ok_or_else(|| Failure::new(format!("failed to parse remote name: {text}")))
    }

    /// The same image by another reference.
    pub fn with_digest(&self, digest: &str) -> Self {
        Self { reference: Reference::Digest(digest.to_owned()), ..self.clone() }
    }

    pub fn is_digest(&self) -> bool {
        matches!(self.reference, Reference::Digest(_))
    }

    /// The tag or the digest.
    pub fn reference(&self) -> &str {
        self.reference.text()
    }

    /// The folder of this image in the cache.
    pub fn path_in(&self, images: &Path) -> PathBuf {
        self.host_path_in(images).join(&self.namespace).join(self.reference())
    }

    /// The folder that pulls from this host lock.
    pub fn host_path_in(&self, images: &Path) -> PathBuf {
        images.join(self.host.replace(':', "%3A"))
    }
}

impl Reference {
    fn text(&self) -> &str {
        match self {
            Self::Tag(text) | Self::Digest(text) => text,
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.is_digest() { '@' } else { ':' };
        write!(f, "{}/{}{separator}{}", self.host, self.namespace, self.reference())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::ImageName;

    #[test]
    fn a_name_with_a_slash_is_an_image_and_any_other_is_a_local_vm() {
        for (text, full) in [
            ("ghcr.io/acme/macos:15", "ghcr.io/acme/macos:15"),
            ("ghcr.io/acme/macos", "ghcr.io/acme/macos:latest"),
            ("127.0.0.1:5000/macos@sha256:ab", "127.0.0.1:5000/macos@sha256:ab"),
        ] {
            assert_eq!(ImageName::parse(text).map(|name| name.to_string()).as_deref(), Some(full));
        }
        for text in ["macos", "a:b", "/macos", "ghcr.io/../macos", "ghcr.io/macos:"] {
            assert_eq!(ImageName::parse(text), None, "{text}");
        }
        let name = ImageName::parse("127.0.0.1:5000/acme/macos:15").expect("a name");
        assert_eq!(name.path_in(Path::new("/c")), Path::new("/c/127.0.0.1%3A5000/acme/macos/15"));
    }
}
