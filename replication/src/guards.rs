//! The switches of this crate's guards: `off!(Guard)` asks whether a test build runs without one.
//!
//! The guards and their names are in `stonelog_storage::mutants`. Without the feature `mutants` the answer is a constant.

macro_rules! off {
    ($guard:ident) => {{
        #[cfg(feature = "mutants")]
        let is_off = stonelog_storage::mutants::Guard::$guard.is_off();
        #[cfg(not(feature = "mutants"))]
        let is_off = false;
        is_off
    }};
}
