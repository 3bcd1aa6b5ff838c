//! Kafka's error codes: one enum, its wire values, and what a client may do about each.
//!
//! The table is `org.apache.kafka.common.protocol.Errors` as of Kafka 4.2 (codes -1 to 133). Texts are ours: a handler
//! that knows more than the code says so in its own error message.

use std::fmt;

macro_rules! error_codes {
    ($($code:literal $variant:ident $name:literal $retriable:ident $message:literal,)*) => {
        /// A Kafka error code. Displays as Kafka's constant name.
        #[repr(i16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("`", $name, "`: ", $message, ".")]
                $variant = $code,
            )*
        }

        impl ErrorCode {
            /// Every code, in order of its wire value.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The code of a wire value, or `None` for one this table does not know.
            pub fn from_code(code: i16) -> Option<ErrorCode> {
                match code {
                    $($code => Some(ErrorCode::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's constant name.
            pub fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $name,)*
                }
            }

            /// One sentence for a human, without a full stop.
            pub fn message(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $message,)*
                }
            }

            /// Whether Kafka's clients send the same request again by themselves (`RetriableException`).
            pub fn is_retriable(self) -> bool {
                match self {
                    $(ErrorCode::$variant => $retriable,)*
                }
            }
        }
    };
}

impl ErrorCode {
    /// The value on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether this is anything but [`ErrorCode::None`].
    pub const fn is_error(self) -> bool {
        !matches!(self, ErrorCode::None)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.code()
    }
}

error_codes! {
    -1 UnknownServerError "UNKNOWN_SERVER_ERROR" false "the broker failed in a way it did not expect",
    0 None "NONE" false "no error",
    1 OffsetOutOfRange "OFFSET_OUT_OF_RANGE" false "the offset lies outside what the broker holds",
    2 CorruptMessage "CORRUPT_MESSAGE" true "the record batch fails its checksum, its size or its shape",
    3 UnknownTopicOrPartition "UNKNOWN_TOPIC_OR_PARTITION" true "the broker does not host this topic or partition",
    4 InvalidFetchSize "INVALID_FETCH_SIZE" false "the requested fetch size is invalid",
    5 LeaderNotAvailable "LEADER_NOT_AVAILABLE" true "the partition has no leader at the moment",
    6 NotLeaderOrFollower "NOT_LEADER_OR_FOLLOWER" true "the broker does not lead, or does not replicate, this partition",
    7 RequestTimedOut "REQUEST_TIMED_OUT" true "the request timed out",
    8 BrokerNotAvailable "BROKER_NOT_AVAILABLE" false "the broker is not available",
    9 ReplicaNotAvailable "REPLICA_NOT_AVAILABLE" true "the replica is not available on this broker",
    10 MessageTooLarge "MESSAGE_TOO_LARGE" false "the record batch is larger than the topic allows",
    11 StaleControllerEpoch "STALE_CONTROLLER_EPOCH" false "the controller has moved to another broker",
    12 OffsetMetadataTooLarge "OFFSET_METADATA_TOO_LARGE" false "the metadata text of the offset commit is too long",
    13 NetworkException "NETWORK_EXCEPTION" true "the connection ended before the answer arrived",
    14 CoordinatorLoadInProgress "COORDINATOR_LOAD_IN_PROGRESS" true "the coordinator is still loading its state",
    15 CoordinatorNotAvailable "COORDINATOR_NOT_AVAILABLE" true "the coordinator is not available",
    16 NotCoordinator "NOT_COORDINATOR" true "this broker is not the coordinator asked for",
    17 InvalidTopicException "INVALID_TOPIC_EXCEPTION" false "the topic name is invalid, or the topic may not be used so",
    18 RecordListTooLarge "RECORD_LIST_TOO_LARGE" false "the record batch is larger than a log segment",
    19 NotEnoughReplicas "NOT_ENOUGH_REPLICAS" true "fewer replicas are in sync than the topic demands; nothing was written",
    20 NotEnoughReplicasAfterAppend "NOT_ENOUGH_REPLICAS_AFTER_APPEND" true "the records were written, but to fewer in-sync replicas than the topic demands",
    21 InvalidRequiredAcks "INVALID_REQUIRED_ACKS" false "acks must be -1, 0 or 1",
    22 IllegalGeneration "ILLEGAL_GENERATION" false "the group generation is not the current one",
    23 InconsistentGroupProtocol "INCONSISTENT_GROUP_PROTOCOL" false "the member shares no protocol with the rest of its group",
    24 InvalidGroupId "INVALID_GROUP_ID" false "the group id is invalid",
    25 UnknownMemberId "UNKNOWN_MEMBER_ID" false "the coordinator does not know this member",
    26 InvalidSessionTimeout "INVALID_SESSION_TIMEOUT" false "the session timeout is outside what the broker allows",
    27 RebalanceInProgress "REBALANCE_IN_PROGRESS" false "the group is rebalancing; the member must join again",
    28 InvalidCommitOffsetSize "INVALID_COMMIT_OFFSET_SIZE" false "the offset commit is too large to store",
    29 TopicAuthorizationFailed "TOPIC_AUTHORIZATION_FAILED" false "not authorized for the topic",
    30 GroupAuthorizationFailed "GROUP_AUTHORIZATION_FAILED" false "not authorized for the group",
    31 ClusterAuthorizationFailed "CLUSTER_AUTHORIZATION_FAILED" false "not authorized for the cluster",
    32 InvalidTimestamp "INVALID_TIMESTAMP" false "a record timestamp lies outside what the topic allows",
    33 UnsupportedSaslMechanism "UNSUPPORTED_SASL_MECHANISM" false "the SASL mechanism is not enabled here",
    34 IllegalSaslState "ILLEGAL_SASL_STATE" false "the request does not fit the state of authentication",
    35 UnsupportedVersion "UNSUPPORTED_VERSION" false "this version of the request is not supported",
    36 TopicAlreadyExists "TOPIC_ALREADY_EXISTS" false "a topic of this name exists already",
    37 InvalidPartitions "INVALID_PARTITIONS" false "the number of partitions is invalid",
    38 InvalidReplicationFactor "INVALID_REPLICATION_FACTOR" false "the replication factor is below 1 or above the number of brokers",
    39 InvalidReplicaAssignment "INVALID_REPLICA_ASSIGNMENT" false "the replica assignment is invalid",
    40 InvalidConfig "INVALID_CONFIG" false "the configuration is invalid",
    41 NotController "NOT_CONTROLLER" true "this broker is not the active controller",
    42 InvalidRequest "INVALID_REQUEST" false "the request is malformed or contradicts itself",
    43 UnsupportedForMessageFormat "UNSUPPORTED_FOR_MESSAGE_FORMAT" false "the record format does not support the request",
    44 PolicyViolation "POLICY_VIOLATION" false "the request violates a policy of this cluster",
    45 OutOfOrderSequenceNumber "OUT_OF_ORDER_SEQUENCE_NUMBER" false "the producer's sequence number does not follow the last one",
    46 DuplicateSequenceNumber "DUPLICATE_SEQUENCE_NUMBER" false "the producer's sequence number was seen before",
    47 InvalidProducerEpoch "INVALID_PRODUCER_EPOCH" false "the producer's epoch is older than the current one",
    48 InvalidTxnState "INVALID_TXN_STATE" false "the transaction is not in a state that allows this",
    49 InvalidProducerIdMapping "INVALID_PRODUCER_ID_MAPPING" false "the producer id is not the one of this transactional id",
    50 InvalidTransactionTimeout "INVALID_TRANSACTION_TIMEOUT" false "the transaction timeout is above what the broker allows",
    51 ConcurrentTransactions "CONCURRENT_TRANSACTIONS" true "another operation on this transaction is in progress",
    52 TransactionCoordinatorFenced "TRANSACTION_COORDINATOR_FENCED" false "the transaction coordinator has been replaced",
    53 TransactionalIdAuthorizationFailed "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" false "not authorized for the transactional id",
    54 SecurityDisabled "SECURITY_DISABLED" false "no authorizer is configured",
    55 OperationNotAttempted "OPERATION_NOT_ATTEMPTED" false "the operation was not attempted because another of its request failed",
    56 KafkaStorageError "KAFKA_STORAGE_ERROR" true "the disk under this log failed",
    57 LogDirNotFound "LOG_DIR_NOT_FOUND" false "the log directory is not one of this broker's",
    58 SaslAuthenticationFailed "SASL_AUTHENTICATION_FAILED" false "SASL authentication failed",
    59 UnknownProducerId "UNKNOWN_PRODUCER_ID" false "the broker holds no state of this producer",
    60 ReassignmentInProgress "REASSIGNMENT_IN_PROGRESS" false "a reassignment of the partition is in progress",
    61 DelegationTokenAuthDisabled "DELEGATION_TOKEN_AUTH_DISABLED" false "delegation tokens are not enabled",
    62 DelegationTokenNotFound "DELEGATION_TOKEN_NOT_FOUND" false "the delegation token does not exist",
    63 DelegationTokenOwnerMismatch "DELEGATION_TOKEN_OWNER_MISMATCH" false "the principal neither owns nor may renew the token",
    64 DelegationTokenRequestNotAllowed "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED" false "delegation tokens may not be requested over this connection",
    65 DelegationTokenAuthorizationFailed "DELEGATION_TOKEN_AUTHORIZATION_FAILED" false "not authorized for the delegation token",
    66 DelegationTokenExpired "DELEGATION_TOKEN_EXPIRED" false "the delegation token has expired",
    67 InvalidPrincipalType "INVALID_PRINCIPAL_TYPE" false "the principal type is not supported",
    68 NonEmptyGroup "NON_EMPTY_GROUP" false "the group still has members",
    69 GroupIdNotFound "GROUP_ID_NOT_FOUND" false "the group does not exist",
    70 FetchSessionIdNotFound "FETCH_SESSION_ID_NOT_FOUND" true "the fetch session does not exist",
    71 InvalidFetchSessionEpoch "INVALID_FETCH_SESSION_EPOCH" true "the fetch session's epoch is not the expected one",
    72 ListenerNotFound "LISTENER_NOT_FOUND" true "the leader has no listener of the name the client came in by",
    73 TopicDeletionDisabled "TOPIC_DELETION_DISABLED" false "deleting topics is disabled",
    74 FencedLeaderEpoch "FENCED_LEADER_EPOCH" true "the leader epoch in the request is older than the broker's",
    75 UnknownLeaderEpoch "UNKNOWN_LEADER_EPOCH" true "the leader epoch in the request is newer than the broker's",
    76 UnsupportedCompressionType "UNSUPPORTED_COMPRESSION_TYPE" false "the compression codec is not supported by this version of the request",
    77 StaleBrokerEpoch "STALE_BROKER_EPOCH" false "the broker epoch is not the current one",
    78 OffsetNotAvailable "OFFSET_NOT_AVAILABLE" true "the new leader's high watermark has not caught up yet",
    79 MemberIdRequired "MEMBER_ID_REQUIRED" false "the member must join again with the id it was given",
    80 PreferredLeaderNotAvailable "PREFERRED_LEADER_NOT_AVAILABLE" true "the preferred leader is not available",
    81 GroupMaxSizeReached "GROUP_MAX_SIZE_REACHED" false "the group has as many members as it may have",
    82 FencedInstanceId "FENCED_INSTANCE_ID" false "another member has taken over this group instance id",
    83 EligibleLeadersNotAvailable "ELIGIBLE_LEADERS_NOT_AVAILABLE" true "no eligible leader is available",
    84 ElectionNotNeeded "ELECTION_NOT_NEEDED" true "the partition needs no election",
    85 NoReassignmentInProgress "NO_REASSIGNMENT_IN_PROGRESS" false "no reassignment is in progress",
    86 GroupSubscribedToTopic "GROUP_SUBSCRIBED_TO_TOPIC" false "the group is subscribed to the topic",
    87 InvalidRecord "INVALID_RECORD" false "a record fails validation",
    88 UnstableOffsetCommit "UNSTABLE_OFFSET_COMMIT" true "offsets of an open transaction are pending",
    89 ThrottlingQuotaExceeded "THROTTLING_QUOTA_EXCEEDED" true "a quota is exceeded",
    90 ProducerFenced "PRODUCER_FENCED" false "a newer producer uses this transactional id",
    91 ResourceNotFound "RESOURCE_NOT_FOUND" false "the resource does not exist",
    92 DuplicateResource "DUPLICATE_RESOURCE" false "the request names a resource twice",
    93 UnacceptableCredential "UNACCEPTABLE_CREDENTIAL" false "the credential is not acceptable",
    94 InconsistentVoterSet "INCONSISTENT_VOTER_SET" false "sender or receiver is not one of the expected voters",
    95 InvalidUpdateVersion "INVALID_UPDATE_VERSION" false "the version to update is not the current one",
    96 FeatureUpdateFailed "FEATURE_UPDATE_FAILED" false "the finalized features could not be updated",
    97 PrincipalDeserializationFailure "PRINCIPAL_DESERIALIZATION_FAILURE" false "the forwarded principal could not be read",
    98 SnapshotNotFound "SNAPSHOT_NOT_FOUND" false "the snapshot does not exist",
    99 PositionOutOfRange "POSITION_OUT_OF_RANGE" false "the position lies outside the snapshot",
    100 UnknownTopicId "UNKNOWN_TOPIC_ID" true "the broker does not host this topic id",
    101 DuplicateBrokerRegistration "DUPLICATE_BROKER_REGISTRATION" false "the broker id is in use",
    102 BrokerIdNotRegistered "BROKER_ID_NOT_REGISTERED" false "the broker id is not registered",
    103 InconsistentTopicId "INCONSISTENT_TOPIC_ID" true "the topic id is not that of the log",
    104 InconsistentClusterId "INCONSISTENT_CLUSTER_ID" false "the cluster id is not that of this cluster",
    105 TransactionalIdNotFound "TRANSACTIONAL_ID_NOT_FOUND" false "the transactional id does not exist",
    106 FetchSessionTopicIdError "FETCH_SESSION_TOPIC_ID_ERROR" true "the fetch session mixes topic ids and topic names",
    107 IneligibleReplica "INELIGIBLE_REPLICA" false "the new in-sync set holds a replica that may not join it",
    108 NewLeaderElected "NEW_LEADER_ELECTED" false "the change was made and another leader was elected",
    109 OffsetMovedToTieredStorage "OFFSET_MOVED_TO_TIERED_STORAGE" false "the offset has moved to tiered storage",
    110 FencedMemberEpoch "FENCED_MEMBER_EPOCH" false "the member's epoch is fenced; it must give up its partitions and join again",
    111 UnreleasedInstanceId "UNRELEASED_INSTANCE_ID" false "the group instance id is still in use by another member",
    112 UnsupportedAssignor "UNSUPPORTED_ASSIGNOR" false "the group does not support this assignor",
    113 StaleMemberEpoch "STALE_MEMBER_EPOCH" false "the member's epoch is stale; it must heartbeat first",
    114 MismatchedEndpointType "MISMATCHED_ENDPOINT_TYPE" false "the request came to an endpoint of the wrong type",
    115 UnsupportedEndpointType "UNSUPPORTED_ENDPOINT_TYPE" false "the endpoint type is not supported",
    116 UnknownControllerId "UNKNOWN_CONTROLLER_ID" false "the controller id is not known",
    117 UnknownSubscriptionId "UNKNOWN_SUBSCRIPTION_ID" false "the telemetry subscription is unknown or outdated",
    118 TelemetryTooLarge "TELEMETRY_TOO_LARGE" false "the pushed telemetry is too large",
    119 InvalidRegistration "INVALID_REGISTRATION" false "the controller refuses the registration",
    120 TransactionAbortable "TRANSACTION_ABORTABLE" false "the transaction failed and can only be aborted",
    121 InvalidRecordState "INVALID_RECORD_STATE" false "the record is not in a state that allows its acknowledgement",
    122 ShareSessionNotFound "SHARE_SESSION_NOT_FOUND" true "the share session does not exist",
    123 InvalidShareSessionEpoch "INVALID_SHARE_SESSION_EPOCH" true "the share session's epoch is not the expected one",
    124 FencedStateEpoch "FENCED_STATE_EPOCH" false "the share-group state epoch is not the current one",
    125 InvalidVoterKey "INVALID_VOTER_KEY" false "the voter key is not that of the receiving replica",
    126 DuplicateVoter "DUPLICATE_VOTER" false "the voter is in the set already",
    127 VoterNotFound "VOTER_NOT_FOUND" false "the voter is not in the set",
    128 InvalidRegularExpression "INVALID_REGULAR_EXPRESSION" false "the regular expression is invalid",
    129 RebootstrapRequired "REBOOTSTRAP_REQUIRED" false "the client's metadata is stale; it must bootstrap again",
    130 StreamsInvalidTopology "STREAMS_INVALID_TOPOLOGY" false "the topology is invalid",
    131 StreamsInvalidTopologyEpoch "STREAMS_INVALID_TOPOLOGY_EPOCH" false "the topology epoch is invalid",
    132 StreamsTopologyFenced "STREAMS_TOPOLOGY_FENCED" false "the topology epoch is outdated",
    133 ShareSessionLimitReached "SHARE_SESSION_LIMIT_REACHED" true "there are as many share sessions as there may be",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_from_minus_one_and_read_back() {
        for (index, error) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(i64::from(error.code()), index as i64 - 1, "{error}");
            assert_eq!(ErrorCode::from_code(error.code()), Some(*error));
        }
        assert_eq!(ErrorCode::from_code(134), None);
        assert_eq!(ErrorCode::from_code(-2), None);
    }

    #[test]
    fn numbers_are_those_kafka_protocol_uses() {
        use kafka_protocol::error::ParseResponseErrorCode as _;
        for error in ErrorCode::ALL.iter().filter(|error| error.is_error()) {
            let theirs = error.code().err().unwrap();
            let squeezed: String = error.name().chars().filter(|c| *c != '_').collect();
            assert_eq!(format!("{theirs:?}").to_uppercase(), squeezed);
            // Kafka made CONCURRENT_TRANSACTIONS retriable; the crate's table has not followed.
            if *error != ErrorCode::ConcurrentTransactions {
                assert_eq!(error.is_retriable(), theirs.is_retriable(), "{error}");
            }
        }
    }
}
