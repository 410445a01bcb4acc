#!/bin/sh
# Compare programs and settings with the hashes of the last run. Differences go to the journal; those that a package or a role
# has announced (/var/lib/aide/accept) are accepted by this, others are shown again until a person accepts them:
#   touch /var/lib/aide/accept
# Ends with 0 also with differences, which are logged as warnings; with 1 when it could not compare.
set -eu
folder=/var/lib/aide

keep() { mv -f "$folder/aide.db.new" "$folder/aide.db"; }
# A number in front is how the journal takes a line's importance: 4 is a warning.
warn() { sed 's/^/<4>/'; }

if [ ! -s "$folder/aide.db" ]; then
  aide --config=/etc/aide/aide.conf --init >/dev/null
  keep
  rm -f "$folder/accept"
  echo "First look: what is there now counts as sound."
  exit 0
fi
what=--check
[ ! -e "$folder/accept" ] || what=--update
code=0
report=$(aide --config=/etc/aide/aide.conf "$what" 2>&1) || code=$?
# 1, 2 and 4 and their sums: files were added, removed, changed.
if [ "$code" -gt 7 ]; then
  printf '%s\n' "$report" | warn
  exit 1
fi
if [ "$code" -gt 0 ]; then
  printf '%s\n' "$report" | warn
else
  echo "Nothing has changed."
fi
if [ "$what" = --update ]; then
  keep
  rm -f "$folder/accept"
fi
