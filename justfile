# The commands of a contributor; `just` lists them. CONTRIBUTING.md has more.

_default:
    @just --list

# Run the product on embedded parts
demo:
    cargo run --release -- demo

# Run the tests, or those whose names contain the arguments
test *names:
    ./test {{names}}

# Format and lint
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets -- -D warnings

# Everything that must pass before a change is merged
ci:
    .ci/run

# Build the programs for benchmarks and show what they can measure
bench:
    cargo build --release --package warren-app --package warren-bench
    target/release/warren-bench --help
