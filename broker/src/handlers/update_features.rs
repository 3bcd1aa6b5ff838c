//! UpdateFeatures (key 57): raises or lowers finalized features (KIP-584, KIP-1022).
//!
//! *Behaviour*: all of the updates or none. *Versions*: 0–2. Before version 2 each feature has a result of its own; in
//! version 0 a downgrade is a flag, later a type.
//! *Differences from Kafka*: there is one feature, `stonelog.metadata.version`, at one level, so nothing is ever written
//! and any broker answers by itself: an update to the level that holds is fine, any other is refused as Kafka refuses a
//! level that the controllers do not support.

use stonelog_protocol::StrBytes;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::update_features_request::FeatureUpdateKey;
use stonelog_protocol::messages::update_features_response::UpdatableFeatureResult;
use stonelog_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use stonelog_replication::controller::{Reject, SUPPORTED_FEATURES};
use stonelog_replication::metadata::MetadataImage;

use crate::request::RequestContext;

/// `FeatureUpdate.UpgradeType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Upgrade,
    SafeDowngrade,
    UnsafeDowngrade,
}

impl Change {
    fn read(version: i16, update: &FeatureUpdateKey) -> Option<Change> {
        match (version, update.upgrade_type) {
            (0, _) if update.allow_downgrade => Some(Change::SafeDowngrade),
            (0, _) | (_, 1) => Some(Change::Upgrade),
            (_, 2) => Some(Change::SafeDowngrade),
            (_, 3) => Some(Change::UnsafeDowngrade),
            _ => None,
        }
    }
}

/// Answers an UpdateFeatures request.
pub fn handle(context: &RequestContext, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let version = context.version();
    let image = context.image();
    let judged = request.feature_updates.iter().try_for_each(|update| judge(&image, version, update));
    respond(version, &request.feature_updates, judged)
}

/// Whether an update asks for what holds already (`FeatureControlManager.updateFeature`).
fn judge(image: &MetadataImage, version: i16, update: &FeatureUpdateKey) -> Result<(), Reject> {
    let (name, level) = (&*update.feature, update.max_version_level);
    let refused = |why: String| {
        let message = format!("Invalid update version {level} for feature {name}. {why}");
        Err(Reject::new(ErrorCode::InvalidUpdateVersion, message))
    };
    let Some(change) = Change::read(version, update) else {
        return refused("The controller does not support the given upgrade type.".to_owned());
    };
    if level < 0 {
        return refused("A feature version cannot be less than 0.".to_owned());
    }
    let Some((_, supported)) = SUPPORTED_FEATURES.iter().find(|(known, _)| *known == name) else {
        return refused("The controllers do not support this feature.".to_owned());
    };
    if !supported.contains(&level) {
        let (start, end) = (supported.start(), supported.end());
        return refused(format!("The controllers only support versions {start}-{end}."));
    }
    let current = image.features().get(name).copied().unwrap_or(0);
    match change {
        Change::Upgrade if level < current => refused(
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe \
             downgrade."
                .to_owned(),
        ),
        Change::SafeDowngrade | Change::UnsafeDowngrade if level > current => {
            refused("Can't downgrade to a newer version.".to_owned())
        }
        _ if level == current => Ok(()),
        _ => refused("It is set when the cluster is formed.".to_owned()),
    }
}

fn respond(version: i16, updates: &[FeatureUpdateKey], judged: Result<(), Reject>) -> UpdateFeaturesResponse {
    let response = UpdateFeaturesResponse::default().with_error_message(None);
    match judged {
        Err(reject) => {
            let message = format!(
                "The update failed for all features since the following feature had an error: {}",
                reject.message
            );
            response.with_error_code(reject.code.code()).with_error_message(Some(StrBytes::from_string(message)))
        }
        // From version 2 on the whole has one error.
        Ok(()) if version >= 2 => response,
        Ok(()) => {
            let done = |update: &FeatureUpdateKey| {
                UpdatableFeatureResult::default().with_feature(update.feature.clone()).with_error_message(None)
            };
            response.with_results(updates.iter().map(done).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(name: &'static str, level: i16, upgrade_type: i8) -> FeatureUpdateKey {
        let feature = StrBytes::from_static_str(name);
        FeatureUpdateKey::default().with_feature(feature).with_max_version_level(level).with_upgrade_type(upgrade_type)
    }

    fn code(update: &FeatureUpdateKey) -> i16 {
        // Nothing is finalized in an empty image, so that the one level is an upgrade nobody can make later.
        judge(&MetadataImage::empty(), 2, update).map_or_else(|reject| reject.code.code(), |()| 0)
    }

    #[test]
    fn unknown_features_levels_and_types_are_refused() {
        assert_eq!(code(&update("metadata.version", 20, 1)), 95);
        assert_eq!(code(&update("stonelog.metadata.version", 2, 1)), 95);
        assert_eq!(code(&update("stonelog.metadata.version", -1, 1)), 95);
        assert_eq!(code(&update("stonelog.metadata.version", 1, 0)), 95);
        assert_eq!(code(&update("stonelog.metadata.version", 1, 3)), 95);
    }

    #[test]
    fn one_refusal_is_that_of_the_whole_and_success_is_told_by_feature_before_version_2() {
        let updates = [update("stonelog.metadata.version", 1, 1)];
        assert_eq!(respond(1, &updates, Ok(())).results.len(), 1);
        assert!(respond(2, &updates, Ok(())).results.is_empty());
        let refused = respond(1, &updates, Err(ErrorCode::InvalidUpdateVersion.into()));
        assert_eq!((refused.error_code, refused.results.len()), (95, 0));
    }
}
