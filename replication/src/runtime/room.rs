//! Producers wait here while the directories they write to hold more than segments have caught up with.
//!
//! Only those directories: one that is slow, full or hangs holds up nobody who writes to another.

use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::TopicPartition;

use super::directory::Directory;
use super::lane::Lane;

/// Another lane may be the one that makes room, so a wait is bounded.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Lane {
    /// Whether nobody who appends to these partitions needs to wait first.
    pub fn has_room_for(&self, partitions: &[TopicPartition]) -> bool {
        // Looked at first because it is the usual case: none waits.
        let pressed = self.node().directories.iter().filter(|directory| directory.is_under_pressure());
        !pressed.into_iter().any(|directory| self.has_any_in(directory, partitions))
    }

    /// Waits until there is room for records of these partitions.
    pub async fn room_for(&self, partitions: &[TopicPartition]) {
        while !self.has_room_for(partitions) {
            let seen = self.room.version();
            let _ = tokio::time::timeout(LOOK_AGAIN, self.room.after(seen)).await;
        }
    }

    fn has_any_in(&self, directory: &Arc<Directory>, partitions: &[TopicPartition]) -> bool {
        let (image, me) = (self.image(), self.node().broker_id);
        partitions.iter().any(|partition| {
            let home = image.partition(*partition).and_then(|registration| registration.directory_of(me));
            home == Some(directory.id)
        })
    }

    pub(super) fn made_room(&self) {
        self.room.publish();
    }
}
