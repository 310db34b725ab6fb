#!/usr/bin/env bash
# The browser test. Installs Chromium (Debian) and playwright-core (npm) if they are not here.
# Needs the program built: target/release/cllm, target/debug/cllm, or CLLM_BIN.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
command -v "${CHROMIUM:-chromium}" >/dev/null || missing+=(chromium)
command -v npm >/dev/null || missing+=(nodejs npm)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
[ -d node_modules/playwright-core ] || npm install --no-audit --no-fund --silent
node --test
