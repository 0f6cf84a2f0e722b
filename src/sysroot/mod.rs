//! What is on the physical root: deployments in boot order, each with a verdict.
