//! The operations of the API: one table.

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) enum Op {
    OpenApi,
    Health,
    Publish,
    ListSubscriptions,
    Subscribe,
    GetSubscription,
    PatchSubscription,
    DeleteSubscription,
    Export,
    Import,
    Errors,
    Topics,
    GetQueue,
    PutQueue,
    DeleteQueue,
    GetExchange,
    PutExchange,
    DeleteExchange,
}

/// An operation, as it is matched and documented.
pub(in crate::hub) struct Operation {
    pub(in crate::hub) op: Op,
    pub(in crate::hub) method: &'static str,
    /// Below `/api/v1`, with `{name}` for what is variable.
    pub(in crate::hub) path: &'static str,
    pub(super) summary: &'static str,
    /// The parameters of the query: name and what it says.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// The schema of the body; `None`: it has none.
    pub(super) body: Option<&'static str>,
    /// Statuses of success, with the schema of the answer's body where it has one, and what they say.
    pub(super) success: &'static [(u16, Option<&'static str>, &'static str)],
    /// Statuses of problems beside those that every operation has.
    pub(super) problems: &'static [u16],
    /// Whether anybody may ask without a login.
    pub(in crate::hub) open: bool,
}

const PLAIN: Operation = Operation {
    op: Op::Health,
    method: "GET",
    path: "",
    summary: "",
    query: &[],
    body: None,
    success: &[],
    problems: &[],
    open: false,
};

/// All operations.
pub(in crate::hub) const OPERATIONS: &[Operation] = &[
    Operation {
        op: Op::OpenApi,
        path: "/openapi.json",
        summary: "This document",
        success: &[(200, None, "the document")],
        open: true,
        ..PLAIN
    },
    Operation {
        op: Op::Health,
        path: "/health",
        summary: "Whether the hub answers",
        success: &[(200, Some("Health"), "it does")],
        open: true,
        ..PLAIN
    },
    Operation {
        op: Op::Publish,
        method: "POST",
        path: "/publish",
        summary: "Publish a message. Needs write on the queue or exchange. Answered once the broker has confirmed it",
        body: Some("Publish"),
        success: &[(202, Some("Published"), "the broker has it")],
        problems: &[404, 409, 422],
        ..PLAIN
    },
    Operation {
        op: Op::ListSubscriptions,
        path: "/subscriptions",
        summary: "The subscriptions to what you may read; all of them for administrators",
        query: &[
            ("vhost", "only of this virtual host"),
            ("queue", "only to this queue"),
            ("exchange", "only to this exchange"),
            (
                "state",
                "only `active`, `waiting` (active, but its queue or the broker cannot be used) or `inactive`",
            ),
            ("limit", "at most so many: 1 to 1000, by default 100"),
            ("after", "those behind the one with this id"),
        ],
        success: &[(200, Some("Page"), "a page of them")],
        ..PLAIN
    },
    Operation {
        op: Op::Subscribe,
        method: "POST",
        path: "/subscriptions",
        summary: "Subscribe a callback, or renew its subscription. Needs read on the queue or exchange",
        body: Some("Subscribe"),
        success: &[
            (201, Some("Subscription"), "the callback agreed (`verify: sync`)"),
            (202, Some("Accepted"), "the callback is asked (`verify: async`)"),
        ],
        problems: &[404, 422],
        ..PLAIN
    },
    Operation {
        op: Op::GetSubscription,
        path: "/subscriptions/{id}",
        summary: "A subscription. Needs read on its queue or exchange",
        query: &[("reveal", "`true` shows secrets, to administrators")],
        success: &[(200, Some("Subscription"), "the subscription")],
        problems: &[404],
        ..PLAIN
    },
    Operation {
        op: Op::PatchSubscription,
        method: "PATCH",
        path: "/subscriptions/{id}",
        summary: "Change a subscription without asking its callback: its state, signing, secret, final_statuses. For administrators",
        body: Some("Patch"),
        success: &[(200, Some("Subscription"), "the subscription as it is now")],
        problems: &[404, 422],
        ..PLAIN
    },
    Operation {
        op: Op::DeleteSubscription,
        method: "DELETE",
        path: "/subscriptions/{id}",
        summary: "Remove a subscription without asking its callback. Needs configure on its queue or exchange",
        success: &[(204, None, "it is gone")],
        problems: &[404],
        ..PLAIN
    },
    Operation {
        op: Op::Export,
        path: "/export",
        summary: "All subscriptions, in the form of RabbitHub's export. For administrators",
        query: &[("reveal", "`true` shows secrets")],
        success: &[(200, Some("Export"), "all subscriptions")],
        ..PLAIN
    },
    Operation {
        op: Op::Import,
        method: "POST",
        path: "/import",
        summary: "Import an export, of RabbitHub or ours. Callbacks of active entries are asked. For administrators",
        body: Some("Export"),
        success: &[(200, Some("ImportResults"), "what became of each entry")],
        ..PLAIN
    },
    Operation {
        op: Op::Errors,
        path: "/errors",
        summary: "The subscriptions whose deliveries went wrong. For administrators",
        success: &[(200, Some("Errors"), "the errors")],
        ..PLAIN
    },
    Operation {
        op: Op::Topics,
        path: "/topics",
        summary: "The topics that anybody may subscribe to at `/hub`",
        success: &[(200, Some("Topics"), "the topics")],
        open: true,
        ..PLAIN
    },
    Operation {
        op: Op::GetQueue,
        path: "/queues/{vhost}/{name}",
        summary: "Whether a queue is there. Needs any right on it",
        success: &[(200, Some("Resource"), "it is")],
        problems: &[404],
        ..PLAIN
    },
    Operation {
        op: Op::PutQueue,
        method: "PUT",
        path: "/queues/{vhost}/{name}",
        summary: "Make a durable queue. Needs configure",
        success: &[(201, None, "it was made"), (204, None, "it was there")],
        problems: &[422],
        ..PLAIN
    },
    Operation {
        op: Op::DeleteQueue,
        method: "DELETE",
        path: "/queues/{vhost}/{name}",
        summary: "Delete a queue with its messages. Needs configure",
        success: &[(204, None, "it is gone")],
        problems: &[404],
        ..PLAIN
    },
    Operation {
        op: Op::GetExchange,
        path: "/exchanges/{vhost}/{name}",
        summary: "Whether an exchange is there, and its type. Needs any right on it",
        success: &[(200, Some("Resource"), "it is")],
        problems: &[404],
        ..PLAIN
    },
    Operation {
        op: Op::PutExchange,
        method: "PUT",
        path: "/exchanges/{vhost}/{name}",
        summary: "Make a durable exchange. Needs configure",
        body: Some("Exchange"),
        success: &[(201, None, "it was made"), (204, None, "it was there, of this type")],
        problems: &[409, 422],
        ..PLAIN
    },
    Operation {
        op: Op::DeleteExchange,
        method: "DELETE",
        path: "/exchanges/{vhost}/{name}",
        summary: "Delete an exchange with its bindings. Needs configure",
        success: &[(204, None, "it is gone")],
        problems: &[404],
        ..PLAIN
    },
];

impl Operation {
    /// The parts of a path that stand for `{…}`, where it is of this form.
    pub(super) fn names<'p>(&self, segments: &[&'p str]) -> Option<Vec<&'p str>> {
        let own: Vec<&str> = self.path.split('/').skip(1).collect();
        if own.len() != segments.len() {
            return None;
        }
        let mut names = Vec::new();
        for (own, segment) in own.into_iter().zip(segments) {
            if own.starts_with('{') {
                names.push(*segment);
            } else if own != *segment {
                return None;
            }
        }
        Some(names)
    }
}
