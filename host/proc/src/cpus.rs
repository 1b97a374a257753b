//! The kernel's two ways to write a set of CPUs: as a mask (`ff,0000000f`) and as a list (`0-3,8`).

/// How many CPUs a mask names.
pub(crate) fn in_mask(mask: &str) -> u32 {
    mask.chars().filter_map(|c| c.to_digit(16)).map(u32::count_ones).fold(0, u32::saturating_add)
}

/// How many CPUs a list names.
pub(crate) fn in_list(list: &str) -> u32 {
    list.trim().split(',').filter_map(range).fold(0, u32::saturating_add)
}

fn range(part: &str) -> Option<u32> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    last.checked_sub(first)?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_ways_are_counted() {
        assert_eq!((in_mask("3"), in_mask("00000000,0000ffff"), in_mask("")), (2, 16, 0));
        assert_eq!((in_list("0-3,8,10-11\n"), in_list("0"), in_list("3-1,x,")), (7, 1, 0));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-f,\\-]{0,40}") {
            let _ = (in_mask(&text), in_list(&text));
        }
    }
}
