//! Finds the kernel's requests in its loaded image and writes the answers' addresses into them.
//!
//! Requests are 8-byte aligned; they are looked for between the start and end markers where the kernel has those,
//! else in the whole image. Source: the Limine project's PROTOCOL.md, "Features" and "Requests Delimiters".

use crate::fail;
use crate::protocol::*;
use alloc::vec::Vec;

/// The kernel's requests, as offsets into its image.
pub struct Requests {
    found: Vec<(Feature, usize)>,
}

fn word(image: &[u8], offset: usize) -> u64 {
    image.get(offset..offset + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
}

/// Offsets at which `image` holds the words of `magic`.
fn find<'a>(image: &'a [u8], magic: &'a [u64]) -> impl Iterator<Item = usize> + 'a {
    let first = magic[0].to_le_bytes();
    image.chunks_exact(8).enumerate().filter(move |(_, chunk)| *chunk == first).map(|(index, _)| index * 8).filter(
        move |&offset| magic.iter().enumerate().all(|(index, &expected)| word(image, offset + index * 8) == expected),
    )
}

impl Requests {
    /// Grants the base revision and collects the requests; fails the boot on another base revision.
    pub fn collect(image: &mut [u8]) -> Self {
        let Some(tag) = find(image, &BASE_REVISION_TAG).next() else {
            fail!("the kernel has no base revision tag, Limine base revision {BASE_REVISION} is needed");
        };
        let revision = word(image, tag + 16);
        if revision != BASE_REVISION {
            fail!("the kernel asks for Limine base revision {revision}, {BASE_REVISION} is needed");
        }
        image[tag + 16..tag + 24].fill(0);

        let start = find(image, &REQUESTS_START).next().map_or(0, |offset| offset + 32);
        let end = find(image, &REQUESTS_END).find(|&end| end >= start).unwrap_or(image.len());
        let area = &image[..end];
        let mut found = Vec::new();
        for offset in find(area, &REQUEST).filter(|&offset| offset >= start && offset + FIELD_OFFSET <= end) {
            let identity = [word(area, offset + 16), word(area, offset + 24)];
            if let Some((feature, _)) = FEATURES.iter().find(|(_, known)| *known == identity) {
                if found.iter().any(|(known, _)| known == feature) {
                    fail!("the kernel has two requests for {feature:?}, one of a kind is allowed");
                }
                found.push((*feature, offset));
            }
        }
        Self { found }
    }

    /// True if the kernel asks for `feature`.
    pub fn has(&self, feature: Feature) -> bool {
        self.found.iter().any(|(known, _)| *known == feature)
    }

    /// The first field of the request for `feature`; None where it is not asked for.
    pub fn field(&self, image: &[u8], feature: Feature) -> Option<u64> {
        let (_, offset) = self.found.iter().find(|(known, _)| *known == feature)?;
        Some(word(image, offset + FIELD_OFFSET))
    }

    /// Writes the address of `feature`'s response into its request, if there is one.
    pub fn answer(&self, image: &mut [u8], feature: Feature, response: u64) {
        for (_, offset) in self.found.iter().filter(|(known, _)| *known == feature) {
            image[offset + RESPONSE_OFFSET..offset + RESPONSE_OFFSET + 8].copy_from_slice(&response.to_le_bytes());
        }
    }
}
