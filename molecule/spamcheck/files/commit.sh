#!/bin/sh
# Make the folder a repository with one commit.
set -eu
git init --quiet .
git add .
git -c user.name=upstream -c user.email=upstream@example.org commit --quiet --message First
