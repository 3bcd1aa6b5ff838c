//! How the world ends, begins again and compares itself with its model.

use super::*;

impl World {
    /// Starts again and holds what is there against the model. The disk is as its end left it.
    pub fn restart(&mut self, left: Left) {
        self.bury();
        self.faults_count += 1;
        if self.options.crash_in_recovery && self.below(3) == 0 {
            let at = self.disk.changes() + self.below(14);
            self.disk.cut_power_at(at);
        }
        let process = match self.start(left != Left::Power) {
            Ok(process) => {
                // A cut that recovery did not reach must not come later.
                self.disk.cut_power_at(u64::MAX);
                process
            }
            Err(_) if self.disk.is_dead() => {
                self.coverage.hit("power cut in recovery");
                self.faults_count += 1;
                let survival = faults::survival(&mut self.random);
                self.disk.crash_to(survival);
                // What only the cache held is lost by now.
                return self.restart(Left::Power);
            }
            Err(fault) => panic!("seed {}: no start after {left:?}: {fault}", self.seed),
        };
        self.process = Some(process);
        self.check(left);
        let config = compacting::keyed_config(&self.options.config);
        for id in self.model.existing() {
            if self.model.now(id).keyed {
                self.process().hosted(id).log.set_config(config.clone());
            }
        }
        self.note_disk();
    }

    pub(super) fn check(&mut self, left: Left) {
        let least = if left == Left::Process { self.model.written } else { self.model.durable };
        let most = self.model.attempted;
        let process = self.process.as_ref().expect("the process runs");
        let what = format!("seed {} after {left:?}", self.seed);
        assert!(process.journal_end.damage.is_empty(), "{what}: {:?}", process.journal_end);
        let is_torn = process.journal_end.torn_tail.is_some();
        self.coverage.hit_if(is_torn, "torn tail");
        assert!(!is_torn || most > least || left == Left::Power, "{what}: a torn tail and nothing was being written");
        for (id, verdict) in &process.verdicts {
            let log = process.log(*id);
            let expected = match (log.is_strict(), left, is_torn) {
                (false, Left::Power, _) => Verdict::Lost(Loss::Relaxed),
                (_, _, true) => Verdict::Cut,
                _ => Verdict::Proved,
            };
            assert_eq!(*verdict, expected, "{what}: {id}");
            self.coverage.hit(match verdict {
                Verdict::Proved => "verdict proved",
                Verdict::Cut => "verdict cut",
                Verdict::Lost(_) | Verdict::Damaged => "verdict lost",
            });
        }
        let cut = find_cut(&self.model, process, least, most, self.seed);
        let cut = cut.unwrap_or_else(|difference| panic!("{what}: {difference}"));
        self.coverage.hit_if(cut < self.model.queued, "queued entries lost");
        self.coverage.hit_if(cut > least, "un-synced entries kept");
        self.note(&[cut]);
        self.model.cut_to(cut);
    }

    /// Brings everything that is queued to the end: durable, in segments, and under a checkpoint.
    pub fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..6 {
            self.commit_all()?;
            let mut ids = self.process().ids();
            ids.extend(self.process().flushing_dropped());
            for id in ids {
                for _ in 0..6 {
                    let process = self.process.as_mut().expect("the process runs");
                    process.step_flush(id, &mut self.coverage)?;
                }
            }
            self.checkpoint()?;
            while self.process().is_checkpointing() {
                self.checkpoint()?;
            }
        }
        self.commit_all()
    }

    /// Writes and syncs everything queued, and the lanes hear of it.
    pub fn commit_all(&mut self) -> Result<(), Fault> {
        for _ in 0..8 {
            self.process().tell();
            self.write()?;
            self.process().tell();
            self.sync()?;
            for lane in 0..LANES_COUNT {
                self.process().hear(lane);
            }
        }
        self.write_empty()?;
        self.process().tell();
        self.sync()
    }

    /// Whether the running process knows exactly what the model knows.
    pub fn check_live(&mut self) {
        let process = self.process.as_ref().expect("the process runs");
        let all = self.model.queued;
        if let Err(difference) = find_cut(&self.model, process, all, all, self.seed) {
            panic!("seed {} while running: {difference}", self.seed);
        }
    }
}
