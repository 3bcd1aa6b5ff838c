//! Power cuts on a real file system: a loop image that drops every byte that was not fsynced.
//!
//! The order of a cut matters: the broker is stopped and all its threads stand still ([`standstill`]), then the file
//! system is shut down without flushing ([`shutdown`]), then the process is killed and the image is mounted anew. With
//! the shutdown first, an fdatasync in flight may say OK for bytes that are gone, and a correct broker would be blamed.
//! A cut counts only if it lost what it should and kept what it must ([`canary`]).

pub mod canary;
pub mod image;
mod shutdown;
mod standstill;

use anyhow::Result;

use crate::broker::Broker;
use canary::Canary;
use image::Image;

/// Takes the power away from `broker` and from the file system under its directory, and gives the latter back.
///
/// Returns whether the cut counts. Whatever `canary` says, the file system is mounted again and the broker is gone.
pub fn cut(broker: Broker, image: &mut Image, canary: Canary) -> Result<bool> {
    standstill::stop(broker.pid())?;
    let canary = canary.expose(image.mount_point())?;
    shutdown::without_flush(image.mount_point())?;
    broker.kill9()?;
    image.remount()?;
    canary.judge(image.mount_point())
}
