//! Matrices as views on memory, which can be cut into tiles along rows and columns.
//!
//! What `split_at_mut` is to a slice: tiles that do not overlap may be written at the same time, and
//! the borrow checker cannot see it for columns of a row-major matrix.

#![expect(unsafe_code, reason = "disjoint columns of a row-major matrix are not slices")]

use std::{marker::PhantomData, ops::Range, ptr::NonNull};

fn len(rows: usize, columns: usize) -> usize {
    rows.checked_mul(columns).expect("a matrix has fewer values than there are addresses")
}

/// A row-major matrix, or a tile of one, to read.
pub(super) struct View<'a, T> {
    start: NonNull<T>,
    rows: usize,
    columns: usize,
    /// From the start of one row to that of the next.
    stride: usize,
    /// It borrows the values of its rows and columns alone.
    values: PhantomData<&'a [T]>,
}

// SAFETY: it stands for `&` to the values in it.
unsafe impl<T: Sync> Send for View<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for View<'_, T> {}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<'a, T> View<'a, T> {
    /// The first `rows` rows of `columns` in `values`.
    pub(super) fn new(values: &'a [T], rows: usize, columns: usize) -> Self {
        let start = NonNull::from(&values[..len(rows, columns)]).cast();
        Self { start, rows, columns, stride: columns, values: PhantomData }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.rows);
        // SAFETY: the row lies within the view, which borrows its values.
        unsafe { std::slice::from_raw_parts(self.start.add(row * self.stride).as_ptr(), self.columns) }
    }

    /// `N` rows from `first` on, of the same length.
    #[inline(always)]
    pub(super) fn rows_from<const N: usize>(&self, first: usize) -> [&'a [T]; N] {
        // Not `from_fn`, whose closure is not always inlined.
        let mut rows = [self.row(first); N];
        for (idx, row) in rows.iter_mut().enumerate() {
            *row = self.row(first + idx);
        }
        rows
    }

    /// Some neighbouring rows.
    pub(super) fn part(&self, rows: Range<usize>) -> Self {
        self.tile(rows, 0..self.columns)
    }

    /// Some neighbouring columns of some neighbouring rows.
    pub(super) fn tile(&self, rows: Range<usize>, columns: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        if rows.is_empty() || columns.is_empty() {
            return Self { start: NonNull::dangling(), rows: rows.len(), columns: 0, stride: 0, ..*self };
        }
        // SAFETY: the tile has a value, which the checks above place within the view.
        let start = unsafe { self.start.add(rows.start * self.stride + columns.start) };
        Self { start, rows: rows.len(), columns: columns.len(), ..*self }
    }
}

/// A row-major matrix, or a tile of one, to write.
pub(super) struct ViewMut<'a, T> {
    start: NonNull<T>,
    rows: usize,
    columns: usize,
    stride: usize,
    /// It borrows the values of its rows and columns alone.
    values: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for `&mut` to the values in it, no two at once for one value.
unsafe impl<T: Send> Send for ViewMut<'_, T> {}
// SAFETY: a shared one lets values be read, and written through the unsafe `tile_unchecked` alone.
unsafe impl<T: Send + Sync> Sync for ViewMut<'_, T> {}

impl<'a, T> ViewMut<'a, T> {
    /// The first `rows` rows of `columns` in `values`.
    pub(super) fn new(values: &'a mut [T], rows: usize, columns: usize) -> Self {
        let values = &mut values[..len(rows, columns)];
        let start = NonNull::from(values).cast();
        Self { start, rows, columns, stride: columns, values: PhantomData }
    }

    pub(super) fn view(&self) -> View<'_, T> {
        let &Self { start, rows, columns, stride, .. } = self;
        View { start, rows, columns, stride, values: PhantomData }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    #[inline(always)]
    pub(super) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: the row lies within the view, which borrows its values for itself alone; `&mut self`
        // lends them out once.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride).as_ptr(), self.columns) }
    }

    /// `N` rows from `first` on.
    #[inline(always)]
    pub(super) fn rows_from<const N: usize>(&mut self, first: usize) -> [&mut [T]; N] {
        assert!(first <= self.rows && N <= self.rows - first);
        // With or without the instructions of whoever calls, a closure of pointers is as good.
        std::array::from_fn(|idx| {
            let start = (first + idx) * self.stride;
            // SAFETY: as in `row`; no value is in two of them.
            unsafe { std::slice::from_raw_parts_mut(self.start.add(start).as_ptr(), self.columns) }
        })
    }

    /// A tile of it, while it is not used itself.
    pub(super) fn tile(&mut self, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'_, T> {
        // SAFETY: `&mut self` lends the values to this tile alone.
        unsafe { self.tile_unchecked(rows, columns) }
    }

    /// # Panics
    /// If the tile is not within the view.
    ///
    /// # Safety
    /// While the tile lives, no value that it writes may be read or written otherwise, and none that it reads be written.
    pub(super) unsafe fn tile_unchecked(&self, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'a, T> {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        if rows.is_empty() || columns.is_empty() {
            return ViewMut {
                start: NonNull::dangling(),
                rows: 0,
                columns: 0,
                stride: 0,
                values: PhantomData,
            };
        }
        // SAFETY: the tile has a value, which the checks above place within the view.
        let start = unsafe { self.start.add(rows.start * self.stride + columns.start) };
        ViewMut { start, rows: rows.len(), columns: columns.len(), stride: self.stride, values: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_lie_where_they_should() {
        let mut values: Vec<usize> = (0..20).collect();
        let mut matrix = ViewMut::new(&mut values, 4, 5);
        let mut tile = matrix.tile(1..3, 2..5);
        assert_eq!((tile.rows(), tile.columns()), (2, 3));
        assert_eq!(tile.row(1), [12, 13, 14]);
        tile.tile(1..2, 1..2).row(0)[0] = 99;
        assert_eq!(matrix.row(2), [10, 11, 12, 99, 14]);
        assert_eq!(View::new(&values, 4, 5).part(2..4).row(0)[3], 99);
    }

    #[test]
    fn rows_are_lent_together() {
        let mut values: Vec<usize> = (0..20).collect();
        let mut matrix = ViewMut::new(&mut values, 4, 5);
        let mut tile = matrix.tile(1..4, 1..3);
        let [first, second] = tile.rows_from::<2>(1).map(|row| &mut row[1]);
        std::mem::swap(first, second);
        assert_eq!((matrix.row(2)[2], matrix.row(3)[2]), (17, 12));
    }

    #[test]
    #[should_panic(expected = "N <= self.rows - first")]
    fn rows_outside_are_not_lent() {
        let mut values = [0; 6];
        ViewMut::new(&mut values, 2, 3).rows_from::<2>(1);
    }

    #[test]
    #[should_panic(expected = "row < self.rows")]
    fn a_row_outside_is_no_row() {
        let mut values = [0; 6];
        ViewMut::new(&mut values, 2, 3).row(2);
    }
}
