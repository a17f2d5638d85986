//! `deploy/` as its readers use it: the samples, the objects for Argo CD and Flux, and scale sets that are kept in a repository.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod gitops;
mod kustomize;
mod repository;
mod samples;
