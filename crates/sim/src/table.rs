//! Tables of random events: name, weight, event. The probability of a row is its weight divided by the sum of all.

use drover_model::Dice;

/// The rows.
pub(crate) type Table<T> = [(&'static str, u64, T)];

/// Draws a row; `None` if the table is empty.
pub(crate) fn draw<T: Copy>(dice: &mut Dice, table: &Table<T>) -> Option<(&'static str, T)> {
    let mut roll = dice.roll(table.iter().map(|(_, weight, _)| weight).sum());
    for (name, weight, what) in table {
        match roll.checked_sub(*weight) {
            Some(rest) => roll = rest,
            None => return Some((name, *what)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_drawn_by_weight() {
        let table = [("one", 1, 'a'), ("never", 0, 'b'), ("three", 3, 'c')];
        let mut dice = Dice::new(4);
        let drawn: String = (0..4000).filter_map(|_| draw(&mut dice, &table)).map(|(_, what)| what).collect();
        let count = |what| drawn.matches(what).count();
        assert!((900..1100).contains(&count('a')) && count('b') == 0 && count('a') + count('c') == 4000);
        assert_eq!(draw::<u8>(&mut dice, &[]), None);
    }
}
