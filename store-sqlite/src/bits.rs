//! A set of places within one chunk of the log, as a bitmap.

/// Places in a chunk.
pub(crate) const CHUNK: u64 = 256;
const WORDS: usize = (CHUNK / 64) as usize;

/// Some of the places `0..CHUNK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bits([u64; WORDS]);

impl Bits {
    pub(crate) fn insert(&mut self, place: u64) {
        self.0[(place / 64) as usize] |= 1 << (place % 64);
    }

    pub(crate) fn remove(&mut self, place: u64) {
        self.0[(place / 64) as usize] &= !(1 << (place % 64));
    }

    pub(crate) fn contains(&self, place: u64) -> bool {
        self.0[(place / 64) as usize] & (1 << (place % 64)) != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The places up to and with `last`.
    pub(crate) fn upto(&self, last: u64) -> Self {
        Self(std::array::from_fn(|word| {
            let first = word as u64 * 64;
            match last.checked_sub(first) {
                None => 0,
                Some(shift) if shift >= 63 => self.0[word],
                Some(shift) => self.0[word] & ((2 << shift) - 1),
            }
        }))
    }

    /// The places, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let mut left = *bits;
            std::iter::from_fn(move || {
                let bit = u64::from(left.trailing_zeros());
                (left != 0).then(|| {
                    left &= left - 1;
                    word as u64 * 64 + bit
                })
            })
        })
    }

    /// The stretches `(first, last)` that begin and end in this set and hold no place of `present`
    /// that is not in it: what one range of the log can delete.
    pub(crate) fn runs(&self, present: &Self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut open = false;
        for place in present.iter() {
            if !self.contains(place) {
                open = false;
            } else if let (true, Some(run)) = (open, runs.last_mut()) {
                run.1 = place;
            } else {
                runs.push((place, place));
                open = true;
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(places: &[u64]) -> Bits {
        let mut bits = Bits::default();
        places.iter().for_each(|&place| bits.insert(place));
        bits
    }

    #[test]
    fn places_come_back_in_order() {
        let places = [0, 1, 63, 64, 127, 128, 200, 255];
        assert_eq!(bits(&places).iter().collect::<Vec<_>>(), places);
    }

    #[test]
    fn upto_keeps_the_last_place_and_nothing_behind_it() {
        let all = bits(&(0..CHUNK).collect::<Vec<_>>());
        for last in [0, 1, 62, 63, 64, 127, 128, 254, 255, 1000] {
            let kept = all.upto(last).iter().collect::<Vec<_>>();
            assert_eq!(kept, (0..=last.min(CHUNK - 1)).collect::<Vec<_>>(), "{last}");
        }
    }

    #[test]
    fn a_run_goes_over_gaps_but_not_over_rows_that_stay() {
        let present = bits(&[1, 2, 5, 6, 9, 70]);
        assert_eq!(bits(&[1, 5, 6, 9, 70]).runs(&present), [(1, 1), (5, 70)]);
    }
}
