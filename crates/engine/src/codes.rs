//! The stable codes of all that can go wrong. Each has a page in `docs/errors/`, named after it.

use std::fmt;

/// A stable name for one way to fail, in kebab case. Scripts may compare it; it is never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(&'static str);

impl Code {
    /// The name.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// The code of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Code> {
        ALL.iter().copied().find(|code| code.0 == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Code = Code($text);)*
        /// All codes.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    // Configuration.
    /// The configuration file cannot be read.
    CONFIG_UNREADABLE = "config-unreadable";
    /// The configuration is not YAML.
    CONFIG_SYNTAX = "config-syntax";
    /// A key that nobody knows.
    UNKNOWN_KEY = "unknown-key";
    /// A key that must be there is not.
    MISSING_KEY = "missing-key";
    /// A value that its key does not take.
    INVALID_VALUE = "invalid-value";
    /// A variable of the environment that is not set, or a file for `${file:…}` that cannot be read.
    MISSING_VARIABLE = "missing-variable";
    /// A name (of a source, model, broker, …) that nothing in the configuration has.
    UNKNOWN_NAME = "unknown-name";
    /// Settings that are each valid and contradict each other.
    CONFLICTING_KEYS = "conflicting-keys";
    /// A command line that is not valid.
    INVALID_ARGUMENTS = "invalid-arguments";

    // Pipelines.
    /// An expression that is not jq, or names what does not exist.
    EXPRESSION_SYNTAX = "expression-syntax";
    /// An expression that fails over a message.
    EXPRESSION_FAILED = "expression-failed";
    /// A JSON Schema that cannot be used.
    INVALID_SCHEMA = "invalid-schema";
    /// A body that is to be text and is not UTF-8.
    NOT_TEXT = "not-text";
    /// A value that its JSON Schema does not allow.
    NOT_VALID = "not-valid";
    /// The HTTP server cannot be reached, or broke off.
    HTTP_FAILED = "http-failed";
    /// Nothing listens on the port of an HTTP server.
    CONNECTION_REFUSED = "connection-refused";
    /// The host name of an HTTP server has no address.
    NAME_NOT_RESOLVED = "name-not-resolved";
    /// The HTTP server answered with a status that was not expected.
    HTTP_STATUS = "http-status";
    /// A URL that was made from message data leads to an address that is not allowed.
    ADDRESS_REFUSED = "address-refused";
    /// An answer, or what a command wrote, is larger than its step takes.
    ANSWER_TOO_LARGE = "answer-too-large";
    /// A command ended with an exit code that is an error, or could not be started.
    COMMAND_FAILED = "command-failed";
    /// A step took longer than it may.
    STEP_TIMEOUT = "step-timeout";
    /// A `fail` step was reached.
    FAILED_ON_PURPOSE = "failed-on-purpose";
    /// A `reply` step was reached by a message that names no queue for an answer.
    NO_REPLY_TO = "no-reply-to";

    // Sources.
    /// The source cannot be reached.
    SOURCE_UNREACHABLE = "source-unreachable";
    /// The source refused the user or password.
    SOURCE_REFUSED_LOGIN = "source-refused-login";
    /// The source has no such database, or there is no such file.
    UNKNOWN_DATABASE = "unknown-database";
    /// The source's certificate, or ours, was refused.
    TLS_FAILED = "tls-failed";
    /// The query is refused by the source.
    QUERY_FAILED = "query-failed";
    /// The query failed or the connection was lost after rows had come.
    QUERY_INTERRUPTED = "query-interrupted";
    /// The query took longer than it may.
    QUERY_TIMEOUT = "query-timeout";
    /// A parameter has a value that the statement does not take.
    INVALID_PARAMETER = "invalid-parameter";
    /// A column of a type that cannot be read.
    UNSUPPORTED_TYPE = "unsupported-type";
    /// The query yields two columns of one name.
    DUPLICATE_COLUMN = "duplicate-column";
    /// The configuration names a column that the model does not have.
    UNKNOWN_COLUMN = "unknown-column";
    /// A sync whose message, or whose `compare`, has only key columns.
    KEY_COLUMNS_ONLY = "key-columns-only";

    // Rows.
    /// A row whose key is NULL, in one of its columns at least.
    NULL_KEY = "null-key";
    /// A key that occurs more than once.
    DUPLICATE_KEY = "duplicate-key";
    /// A value that JSON cannot hold: NaN or an infinity.
    NOT_A_JSON_NUMBER = "not-a-json-number";
    /// A rendered message that is not JSON.
    INVALID_JSON = "invalid-json";
    /// A template that fails while it renders a row.
    TEMPLATE_FAILED = "template-failed";
    /// A template that cannot be parsed.
    TEMPLATE_SYNTAX = "template-syntax";
    /// A column that is to hold a message, a queue or a property holds NULL.
    NULL_VALUE = "null-value";
    /// A property's value is not what the property takes.
    INVALID_PROPERTY = "invalid-property";
    /// A property, name or key is longer than the protocol allows.
    VALUE_TOO_LONG = "value-too-long";
    /// The headers do not fit a frame.
    HEADERS_TOO_LARGE = "headers-too-large";
    /// The message is larger than the destination takes.
    MESSAGE_TOO_LARGE = "message-too-large";

    /// The message is empty, and the destination takes none without a character.
    EMPTY_MESSAGE = "empty-message";
    /// The message, or an attribute, has characters that the destination does not take.
    INVALID_CHARACTERS = "invalid-characters";
    /// A message has more attributes than the destination takes.
    TOO_MANY_ATTRIBUTES = "too-many-attributes";
    /// An attribute's name, type or value is not what the destination takes.
    INVALID_ATTRIBUTE = "invalid-attribute";
    /// A message for a FIFO queue has no group id.
    MISSING_GROUP_ID = "missing-group-id";
    /// A group id is too long, or has characters that the destination does not take.
    INVALID_GROUP_ID = "invalid-group-id";
    /// A message for a FIFO queue has no deduplication id, and the queue makes none of the content.
    MISSING_DEDUPLICATION_ID = "missing-deduplication-id";
    /// A deduplication id is too long, or has characters that the destination does not take.
    INVALID_DEDUPLICATION_ID = "invalid-deduplication-id";
    /// A delay is out of range, or the queue delays no single message.
    INVALID_DELAY = "invalid-delay";
    /// The message was not sent because an earlier one of its group had failed.
    HELD = "held";

    // Brokers.
    /// The broker cannot be reached.
    BROKER_UNREACHABLE = "broker-unreachable";
    /// The broker refused the user or password.
    BROKER_REFUSED_LOGIN = "broker-refused-login";
    /// The vhost does not exist, or the user may not use it.
    UNKNOWN_VHOST = "unknown-vhost";
    /// The queue does not exist.
    NO_SUCH_QUEUE = "no-such-queue";
    /// The exchange does not exist.
    NO_SUCH_EXCHANGE = "no-such-exchange";
    /// No queue is bound for the message's routing key.
    UNROUTABLE = "unroutable";
    /// The user may not do that.
    ACCESS_REFUSED = "access-refused";
    /// The broker allows that to no user: an internal exchange, or a name that it keeps for itself.
    NOT_ALLOWED = "not-allowed";
    /// The broker refused the message.
    BROKER_REFUSED_MESSAGE = "broker-refused-message";
    /// The broker asks for fewer messages at once.
    BROKER_THROTTLED = "broker-throttled";
    /// The broker has stored something else than what was sent.
    DIGEST_MISMATCH = "digest-mismatch";
    /// The broker holds back publishers (memory or disk alarm).
    BROKER_BLOCKED = "broker-blocked";
    /// The broker's answer did not come in time.
    PUBLISH_TIMEOUT = "publish-timeout";
    /// The connection was lost before the answer came.
    CONNECTION_LOST = "connection-lost";
    /// The broker spoke against the protocol, or closed with an error of its own.
    PROTOCOL_ERROR = "protocol-error";
    /// The management API refused or did not answer.
    MANAGEMENT_FAILED = "management-failed";

    // Runs.
    /// The query returned nothing although the baseline has rows.
    EMPTY_RESULT = "empty-result";
    /// More rows are removed, changed or sent than the guard allows.
    GUARD_EXCEEDED = "guard-exceeded";
    /// The model's columns changed in a way the message uses.
    COLUMNS_CHANGED = "columns-changed";
    /// The plan does not fit what is there now.
    PLAN_OUTDATED = "plan-outdated";
    /// Another run of the sync is under way.
    RUN_UNDER_WAY = "run-under-way";
    /// The run was stopped.
    CANCELLED = "cancelled";
    /// The destination could not be reached for longer than the run waits.
    GAVE_UP = "gave-up";

    /// The baseline of a sync that is gone from the configuration, next to a sync that begins anew.
    ORPHANED_BASELINE = "orphaned-baseline";

    // Consuming.
    /// The handler did not end within its deadline.
    DEADLINE_PASSED = "deadline-passed";
    /// The queue's settings lose messages, or end consuming, where the trigger would not.
    QUEUE_MISFIT = "queue-misfit";
    /// Nobody runs the trigger.
    TRIGGER_NOT_RUNNING = "trigger-not-running";
    /// The process that runs the trigger does not say how it is.
    PROCESS_SILENT = "process-silent";
    /// The process died with messages that have not ended since.
    CRASH_SUSPECTS = "crash-suspects";
    /// More messages wait behind a failing one of their key than may be parked; the rest is dead-lettered.
    KEY_BACKLOG = "key-backlog";

    // The hub.
    /// So much waits to be done for the hub's callers that it takes no more for now.
    HUB_BUSY = "hub-busy";
    /// Another process runs the hub, with the same state.
    HUB_RUNS_ELSEWHERE = "hub-runs-elsewhere";
    /// A user, or a host of callbacks, has as many subscriptions as it may.
    TOO_MANY_SUBSCRIPTIONS = "too-many-subscriptions";
    /// Too many wrong passwords were tried from an address or for a name.
    TOO_MANY_LOGINS = "too-many-logins";
    /// A host of callbacks was asked as often in this minute as it may be.
    TOO_MANY_VERIFICATIONS = "too-many-verifications";

    // State.
    /// There is little room left on the disk of the state folder.
    DISK_NEARLY_FULL = "disk-nearly-full";
    /// The state folder cannot be written: full, read only, or not ours.
    STATE_UNWRITABLE = "state-unwritable";
    /// A file of the state folder is damaged.
    STATE_DAMAGED = "state-damaged";
    /// A file of the state folder was written by a newer version.
    STATE_TOO_NEW = "state-too-new";

    /// A bug of Warren.
    INTERNAL = "internal";
}
