//! What happens when no deployment boots.
