# All that a person or a machine runs here. Whatever is not cargo's own work is a script under tests/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export RUSTDOCFLAGS := -D warnings
BAD_WORKFLOW := tests/support/workflow.yml
MODEL := cargo test --quiet --workspace --test model

.PHONY: help build check test test-one test-node demo demo-mac demo-ecs bench soak fuzz crd metrics picture
.PHONY: cluster cluster-node cluster-node-down docker image up down clean run-tests run-parts run-model
.PHONY: check-fmt check-clippy check-crd check-chart check-deny check-doc check-shell check-workflows

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The release binary, target/release/paddock
	cargo build --release

check: check-fmt check-clippy check-crd check-chart check-deny check-doc check-shell check-workflows ## Format, lints, CRD drift, chart, dependencies, docs, scripts, workflows

test: ## The checks and every test, with the real parts brought up before and ended after
	@tests/step 'make test' $(MAKE) check run-tests

test-one: ## The tests whose name contains T=name, with the parts that they need (fast after `make up`)
	@tests/one '$(T)'

test-node: ## The chart and the image in a whole cluster with pods (as root; T=name: those tests alone)
	@tests/node/run $(T)

demo: ## Paddock at work on a simulated GitHub, with real runners in Docker (CLUSTER=current: on your own cluster)
	@tests/demo/run

demo-mac: ## Paddock at work on three Macs (stand-ins behind sshd), with a warm pool and eight jobs
	@tests/demo/run-mac

demo-ecs: ## The same over a simulated Amazon ECS, with a Spot interruption
	@tests/demo/run-ecs

bench: ## Figures: reconciles, polls and starts at scale
	@tests/bench/run

soak: ## Hours of work under faults, watching for leaks
	@tests/soak/run

fuzz: ## A million inputs, drawn anew, for each function that reads what comes from outside
	PADDOCK_FUZZ_INPUTS=1000000 PADDOCK_FUZZ_SEED=$$RANDOM cargo test --lib fuzz_

crd: ## Write crds/runnerscaleset.yaml, and the chart's copy of it, from the types
	@mkdir -p crds target
	@cargo run --quiet -- crd >target/crd.yaml
	@mv target/crd.yaml crds/runnerscaleset.yaml
	@cp crds/runnerscaleset.yaml charts/paddock/files/

metrics: ## Write the table of docs/metrics.md from the code
	@PADDOCK_WRITE_METRICS=1 cargo test --quiet --workspace --test docs the_table_of_metrics

picture: ## Draw docs/picture/dashboard.png: the dashboard's JSON with what a test's Prometheus has (not Grafana itself)
	@tests/chart/picture/draw
	@PADDOCK_DASHBOARD_PICTURE=$(CURDIR)/docs/picture/dashboard.png tests/step 'make picture' tests/with-parts \
	  cargo test --quiet --workspace --test chart no_panel_of_the_dashboard_is_empty

cluster: ## etcd, kube-apiserver and kubectl in .cache/bin: found, or built (8 minutes, once)
	@tests/cluster/build

cluster-node: ## A whole cluster of one node, in namespaces of its own, as root; prints its kubeconfig
	@tests/node/up

cluster-node-down: ## End what `make cluster-node` started
	@tests/node/down

docker: ## A Docker engine: the one that answers, else one started here
	@tests/docker/up

image: docker ## The tests' images: paddock.test/runner:1, and paddock.test/engine:1 in place of docker:dind
	@tests/docker/image
	@tests/docker/engine-image

up: docker image ## Docker and an API server to work with; prints what to export for `cargo test`
	@kubeconfig=$$(tests/cluster/up .cache/run/dev) && echo "export PADDOCK_TEST_KUBECONFIG=$$kubeconfig"

down: cluster-node-down ## End what `make up`, `make cluster-node` and `make docker` started
	@tests/cluster/down .cache/run/dev
	@tests/docker/down

clean: down ## Remove all that was built and cached
	rm -rf .cache target

check-fmt:
	@tests/step 'cargo fmt' cargo fmt --all --check

# --all-targets leaves out what `cargo test` does not run by itself.
check-clippy:
	@tests/step 'cargo clippy' cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
	@tests/step 'cargo clippy of the model and the node' cargo clippy --locked --quiet --workspace --test model --test node -- -D warnings

# With the tests' own build of the program: another would compile most dependencies once more.
check-crd:
	@tests/step 'CRDs as committed' cargo test --quiet --workspace --test docs the_committed_crds

# With all that can be switched on; tests/chart has every combination.
check-chart:
	@tests/tool helm promtool
	@tests/step 'helm lint' .cache/bin/helm lint --strict --quiet charts/paddock
	@tests/step 'helm template' bash -c '.cache/bin/helm template paddock charts/paddock --namespace paddock \
	  --values tests/support/chart.yaml >/dev/null'
	@tests/step 'promtool' .cache/bin/promtool test rules tests/support/alerts.yaml

check-deny:
	@tests/tool cargo-deny
	@tests/step 'cargo deny' .cache/bin/cargo-deny --log-level warn check bans licenses sources

check-doc:
	@tests/step 'cargo doc' cargo doc --quiet --no-deps --workspace

check-shell:
	@tests/tool shellcheck
	@tests/step shellcheck .cache/bin/shellcheck --external-sources --source-path=SCRIPTDIR \
	  $$(grep -rlI --exclude-dir=target --exclude-dir=node_modules '^#!/usr/bin/env bash' tests .ci) tests/lib.sh

# What the linters are for is in a workflow that both must refuse.
check-workflows:
	@tests/tool shellcheck actionlint zizmor
	@tests/step actionlint .cache/bin/actionlint -shellcheck .cache/bin/shellcheck .github/workflows/*.yml
	@tests/step zizmor .cache/bin/zizmor --offline --quiet .github
	@tests/step 'a bad workflow is refused' bash -c 'set +o pipefail; \
	  .cache/bin/actionlint $(BAD_WORKFLOW) | grep -q "\[expression\]" && \
	  .cache/bin/zizmor --offline --quiet $(BAD_WORKFLOW) | grep -q template-injection'

# The tests are compiled before the parts come up, so that those do not idle. The model, which is optimized, takes what
# the other tests leave of the machine: they wait more than they work.
run-tests:
	@tests/step 'build the tests' cargo test --quiet --workspace --no-run
	@tests/step 'build the model' $(MODEL) --no-run
	@tests/step 'build what others know of GitOps' tests/deploy/tools/build
	@$(MAKE) --jobs=2 run-parts run-model

run-parts:
	@tests/podman
	@tests/with-parts tests/step 'run the tests' cargo test --workspace

run-model:
	@tests/step 'play the model' nice -n 19 $(MODEL)
