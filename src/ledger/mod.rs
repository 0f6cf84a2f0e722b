//! The boot ledger: a ring of records that explains every attempt and its outcome.
