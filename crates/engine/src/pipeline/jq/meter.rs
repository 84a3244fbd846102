//! What one evaluation may use: steps, bytes, stack and nesting.
//!
//! The interpreter walks a tree and asks for its terms at every step, and every value it makes is made here in this folder; both
//! come by this meter. Some of these places cannot fail, so a meter that has run out ends the evaluation by unwinding, quietly and
//! past any `try` of the expression, to [`metered`]. The meter belongs to the thread, because values know nothing of the evaluation
//! they are part of.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arrays and objects within each other: as many as JSON that is read may have.
pub const DEPTH_MAX: u32 = 128;

/// Steps between two looks at whether anybody still waits.
const STEPS_BETWEEN_LOOKS: u64 = 256;

/// What one evaluation may use.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Terms evaluated.
    pub steps: u64,
    /// Bytes of all values made on the way, also of those thrown away.
    pub bytes: u64,
    /// Bytes of stack.
    pub stack: usize,
}

/// What ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// Steps.
    Steps,
    /// Bytes of values.
    Bytes,
    /// Stack: a function that calls itself.
    Stack,
    /// Arrays and objects within each other.
    Depth,
    /// Nobody waits for the result any more.
    Cancelled,
}

/// Why an evaluation has no result.
#[derive(Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Something ran out.
    Exhausted(Exhausted),
    /// The interpreter failed in a way it should not.
    Panicked,
}

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(u64::MAX) };
    static BYTES: Cell<u64> = const { Cell::new(u64::MAX) };
    /// The address below which the stack must not grow.
    static STACK_END: Cell<usize> = const { Cell::new(0) };
    static CANCELLED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Evaluates under a meter. Not to be nested.
pub fn metered<T>(
    allowance: Allowance,
    cancelled: Option<Arc<AtomicBool>>,
    evaluate: impl FnOnce() -> T,
) -> Result<T, Stopped> {
    STEPS.set(allowance.steps);
    BYTES.set(allowance.bytes);
    STACK_END.set(stack_pointer().saturating_sub(allowance.stack));
    CANCELLED.with_borrow_mut(|held| *held = cancelled);
    let result = catch_unwind(AssertUnwindSafe(evaluate));
    STEPS.set(u64::MAX);
    BYTES.set(u64::MAX);
    STACK_END.set(0);
    CANCELLED.with_borrow_mut(|held| *held = None);
    result.map_err(|payload| match payload.downcast::<Exhausted>() {
        Ok(exhausted) => Stopped::Exhausted(*exhausted),
        Err(_) => Stopped::Panicked,
    })
}

/// One step.
pub fn step() {
    let left = STEPS.get();
    if left == 0 {
        stop(Exhausted::Steps);
    }
    STEPS.set(left - 1);
    if stack_pointer() < STACK_END.get() {
        stop(Exhausted::Stack);
    }
    if left.is_multiple_of(STEPS_BETWEEN_LOOKS) {
        let cancelled = CANCELLED
            .with_borrow(|held| held.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)));
        if cancelled {
            stop(Exhausted::Cancelled);
        }
    }
}

/// A value of so many bytes is about to be made.
pub fn charge(bytes: usize) {
    let left = BYTES.get();
    match left.checked_sub(bytes as u64) {
        Some(left) => BYTES.set(left),
        None => stop(Exhausted::Bytes),
    }
}

/// A value of that depth is about to be made.
pub fn deepen(depth: u32) {
    if depth > DEPTH_MAX {
        stop(Exhausted::Depth);
    }
}

/// Unwinds without the words of a panic.
fn stop(exhausted: Exhausted) -> ! {
    resume_unwind(Box::new(exhausted))
}

/// About where the stack is now.
#[inline(never)]
fn stack_pointer() -> usize {
    let marker = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&marker)).addr()
}
