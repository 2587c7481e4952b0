//! Tensors, and the memory they are views of.

use crate::{
    hlo::ArrayShape,
    pjrt::{Buffer, Device, PjrtError},
};
use std::{
    alloc::{Layout, alloc, dealloc},
    collections::HashMap,
    ptr::NonNull,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// XLA shares memory with its caller if it is aligned so.
pub(crate) const ALIGNMENT: usize = 64;
/// Nobody clears a device's memory. These bytes are NaN as a number, and no index of anything.
const STALE: u8 = 0xff;

/// `PrimitiveType`s of floats.
const F16: i64 = 10;
const F32: i64 = 11;
const BF16: i64 = 16;

/// Bytes in use of one core's memory, or of the host's.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    used: AtomicUsize,
    most: AtomicUsize,
}

impl Meter {
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Whether there was as much within the limit.
    pub(crate) fn take(&self, bytes: usize, limit: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|used| *used <= limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        self.most.fetch_max(self.used(), Ordering::Relaxed);
        taken
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One allocation; it lives until the last tensor that is a view of it goes.
#[derive(Debug)]
pub(crate) struct Storage {
    start: NonNull<u8>,
    layout: Layout,
    meter: Arc<Meter>,
}

// SAFETY: the memory is owned, and whoever touches it must see to it that nobody else does: see `Tensor`.
unsafe impl Send for Storage {}
// SAFETY: as above.
unsafe impl Sync for Storage {}

impl Storage {
    /// Memory that is full of what was there before; `None` if there is not as much left.
    pub(crate) fn allocate(size: usize, meter: Arc<Meter>, limit: usize) -> Option<Arc<Self>> {
        let layout = Layout::from_size_align(size, ALIGNMENT).ok().filter(|_| size > 0)?;
        if !meter.take(size, limit) {
            return None;
        }
        // SAFETY: the layout has a size.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            meter.give_back(size);
            return None;
        };
        // SAFETY: `size` bytes have just been allocated there.
        unsafe { start.write_bytes(STALE, size) };
        Some(Arc::new(Storage { start, layout, meter }))
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody has a view of it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
        self.meter.give_back(self.layout.size());
    }
}

/// A range of an allocation. Copying in and out of one is between the caller's threads, as it is on a device;
/// only a running program is known to this library, which makes others wait for it.
#[derive(Debug)]
pub(crate) struct Tensor {
    /// What XLA has of it, by device and shape: made once, so that weights are handed over and never copied.
    views: Mutex<HashMap<(Device, ArrayShape), Arc<Buffer>>>,
    storage: Arc<Storage>,
    offset: usize,
    pub(crate) size: usize,
    /// The core whose memory it is in; `None` for the host's.
    pub(crate) core: Option<usize>,
    pub(crate) name: String,
}

impl Tensor {
    pub(crate) fn new(storage: Arc<Storage>, core: Option<usize>, name: String) -> Self {
        let size = storage.layout.size();
        Tensor { views: Mutex::default(), storage, offset: 0, size, core, name }
    }

    /// `offset` and `size` must be inside.
    pub(crate) fn slice(&self, offset: usize, size: usize, name: String) -> Self {
        let storage = Arc::clone(&self.storage);
        Tensor { views: Mutex::default(), storage, offset: self.offset + offset, size, core: self.core, name }
    }

    pub(crate) fn contains(&self, offset: usize, size: usize) -> bool {
        offset.checked_add(size).is_some_and(|end| end <= self.size)
    }

    pub(crate) fn overlaps(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
            && self.offset < other.offset + other.size
            && other.offset < self.offset + self.size
    }

    pub(crate) fn is_same_place(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage) && (self.offset, self.size) == (other.offset, other.size)
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        // SAFETY: the offset is inside the allocation.
        unsafe { self.storage.start.add(self.offset) }
    }

    /// What it holds as 32-bit integers.
    pub(crate) fn integers(&self) -> Vec<i64> {
        let mut words = vec![0i32; self.size / 4];
        let bytes = words.len() * 4;
        // SAFETY: as many bytes as the words have are in the tensor, and nobody writes them while a program
        // that reads them is about to run.
        unsafe { self.start().as_ptr().copy_to_nonoverlapping(words.as_mut_ptr().cast(), bytes) };
        words.into_iter().map(i64::from).collect()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the tensor's own bytes, which nobody writes while a program that has them does not run.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.size) }
    }

    /// Makes every float NaN, of so many bytes each, that is not as it was before.
    pub(crate) fn spoil(&self, before: &[u8], width: usize) {
        // SAFETY: as of `bytes`, and nobody reads them either.
        let now = unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.size) };
        let changed = now.chunks_exact_mut(width).zip(before.chunks_exact(width));
        changed.filter(|(now, before)| now != before).for_each(|(now, _)| now.fill(STALE));
    }

    /// Whether it holds a float that is no number; `element` is a `PrimitiveType`.
    pub(crate) fn has_nan(&self, element: i64) -> bool {
        let bytes = self.bytes();
        let halves = |infinity: u16| {
            bytes.as_chunks::<2>().0.iter().any(|bytes| u16::from_le_bytes(*bytes) & 0x7fff > infinity)
        };
        match element {
            F32 => bytes.as_chunks::<4>().0.iter().any(|bytes| f32::from_le_bytes(*bytes).is_nan()),
            F16 => halves(0x7c00),
            BF16 => halves(0x7f80),
            _ => false,
        }
    }

    /// What XLA reads it through, and whether that is the memory itself and no copy.
    pub(crate) fn view(&self, device: Device, shape: &ArrayShape) -> Result<(Arc<Buffer>, bool), PjrtError> {
        let mut views = self.views.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let view = match views.get(&(device, shape.clone())) {
            Some(view) => Arc::clone(view),
            None => {
                // SAFETY: the caller has checked the size; views go before the storage does.
                let view = Arc::new(unsafe { device.view(self.start(), shape, false)? });
                views.insert((device, shape.clone()), Arc::clone(&view));
                view
            }
        };
        let shared = std::ptr::eq(view.pointer()?, self.start().as_ptr());
        Ok((view, shared))
    }

    /// For an input that an output takes the place of. XLA consumes it, so it is made for one execution.
    pub(crate) fn writable_view(&self, device: Device, shape: &ArrayShape) -> Result<Buffer, PjrtError> {
        // SAFETY: as above; nobody else may write the tensor while it is part of a running program.
        unsafe { device.view(self.start(), shape, true) }
    }
}
