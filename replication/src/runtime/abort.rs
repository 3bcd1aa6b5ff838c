//! A bug ends the process rather than spread (rule: crash is a fault the design survives, a half-made change is not).
//!
//! A panic while decoding a client's bytes ends that client's connection, no more. A panic on a thread or in a task
//! that everybody depends on, or while a partition's state is being changed, ends the process: recovery then begins
//! from the journal, which holds nothing half made.

/// While it lives, a panic of the calling thread aborts the process as it unwinds.
pub(crate) struct AbortOnPanic {
    /// What is being done, for the log.
    pub(crate) what: &'static str,
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic's own message has been printed by now.
            tracing::error!("{} cannot go on after a panic: the process ends", self.what);
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "STONELOG_TEST_ABORTS";

    #[test]
    fn panic_under_the_guard_ends_the_process_and_a_return_does_not() {
        if std::env::var_os(CHILD).is_some() {
            let _caught = std::panic::catch_unwind(|| {
                let _guard = AbortOnPanic { what: "a test" };
                panic!("on purpose");
            });
            std::process::exit(0);
        }
        drop(AbortOnPanic { what: "a test" });
        let name = "runtime::abort::tests::panic_under_the_guard_ends_the_process_and_a_return_does_not";
        let this = std::env::current_exe().unwrap();
        let child = Command::new(this).args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert_eq!(child.status.code(), None, "it was ended by a signal");
    }
}
