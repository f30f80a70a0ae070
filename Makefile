# postmark_connector: an ordinary PGXS extension.
#
#   make                     build with the pg_config in PATH (PG_CONFIG=… for another)
#   make install             into that installation (needs the right to write there)
#   make installcheck        the tests, against a running server that has
#                            shared_preload_libraries = 'postmark_connector'
#
#   make dist                the archive for PGXN, of what is committed
#   make coverage            which lines the tests execute (SUITES="regress tap")
#
# test/check does all but these two by itself, with a server of its own.

EXTENSION = postmark_connector
MODULE_big = postmark_connector
PGFILEDESC = "postmark_connector - sends verification emails through Postmark"

# Where the sources are: the build may be in another directory (VPATH), as that
# of Debian's packages is.
SOURCE := $(patsubst %/,%,$(dir $(firstword $(MAKEFILE_LIST))))

# Every source under src/ belongs to the one library, so a new file needs no
# line here. Sorted: the link order must not depend on the file system.
SOURCES := $(sort $(wildcard $(SOURCE)/src/*.c $(SOURCE)/src/*/*.c))
OBJS = $(patsubst $(SOURCE)/%.c,%.o,$(SOURCES))
DATA = $(patsubst $(SOURCE)/%,%,$(sort $(wildcard $(SOURCE)/postmark_connector--*.sql)))

# The texts of the mails, which the library has in it as C strings.
TEXTS := $(patsubst $(SOURCE)/%,%.inc,$(sort $(wildcard $(foreach kind,html txt json,$(SOURCE)/templates/*.$(kind)))))
EXTRA_CLEAN = $(TEXTS)

DOCS := $(patsubst $(SOURCE)/%,%,$(sort $(wildcard $(SOURCE)/doc/*.md $(SOURCE)/doc/*.svg $(SOURCE)/doc/monitoring/*.yaml)))

# The library tells a server that asks (PostgreSQL 18) which version it is.
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(SOURCE)/$(EXTENSION).control)

CURL_CONFIG ?= curl-config
PG_CPPFLAGS = -I$(SOURCE)/src -DPM_VERSION='"$(EXTVERSION)"' $(shell $(CURL_CONFIG) --cflags)
SHLIB_LINK = $(shell $(CURL_CONFIG) --libs)

# A compiler newer than ours may warn of something new, and that must stop
# nobody who only installs; test/check sets WERROR = -Werror. The three
# exceptions are for PostgreSQL's own idioms: function signatures fixed by the
# fmgr and by hooks, int and Size compared in server macros, and { NULL } at
# the end of the server's tables.
PG_CFLAGS = -Wall -Wextra $(WERROR) \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers

# A server built with gcc hands on flags, and a kind of printf attribute, that
# clang does not know.
ifneq (,$(findstring clang,$(CC)))
PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument \
	-Wno-ignored-attributes
endif

# No LLVM bitcode: nothing here gains from being inlined into a JIT-compiled
# expression, and without it a build needs no clang.
override with_llvm = no

# := so that an empty list counts as not defined.
REGRESS := $(sort $(patsubst $(SOURCE)/sql/%.sql,%,$(wildcard $(SOURCE)/sql/*.sql)))
ISOLATION := $(sort $(patsubst $(SOURCE)/test/specs/%.spec,%,$(wildcard $(SOURCE)/test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test
PROVE_TESTS := $(patsubst $(SOURCE)/%,%,$(sort $(wildcard $(SOURCE)/test/t/*.pl)))
ifneq (,$(PROVE_TESTS))
TAP_TESTS = 1
endif

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# After PGXS, which empties it. The tests' own Perl modules lie beside them.
PROVE_FLAGS = -I test/t

# PGXS knows no dependencies on headers. One coarse rule is always right, and
# the whole library builds in seconds.
$(OBJS): $(wildcard $(SOURCE)/src/*.h $(SOURCE)/src/*/*.h) $(SOURCE)/Makefile \
	$(SOURCE)/$(EXTENSION).control

# Each line of a text becomes a string that ends in a line feed.
src/postmark/template_text.o: $(TEXTS)
$(TEXTS): %.inc: $(SOURCE)/% $(SOURCE)/Makefile
	sed 's/[\\"]/\\&/g; s/.*/"&\\n"/' $< >$@

# A build elsewhere needs the rooms there too. Absolute, since make would find
# a relative directory in the source tree and be content.
ROOMS := $(addprefix $(CURDIR)/,$(sort $(dir $(OBJS) $(TEXTS))))
$(OBJS) $(TEXTS): | $(ROOMS)
$(ROOMS):
	mkdir -p $@

# PGXS would put the pages of all extensions into one folder, where two have
# an install.md. Ours keep the places that their links know: doc/ below the
# README. It also forgets, when uninstalling, that it installed them flat.
docmoduledir := extension/$(EXTENSION)/doc
PAGES_DIR = $(DESTDIR)$(docdir)/extension/$(EXTENSION)

install: install-readme
install-readme: installdirs
	$(INSTALL_DATA) $(SOURCE)/README.md '$(PAGES_DIR)/'

uninstall: uninstall-pages
uninstall-pages:
	rm -f '$(PAGES_DIR)/README.md' $(patsubst %,'$(PAGES_DIR)/doc/%',$(notdir $(DOCS)))

.PHONY: install-readme uninstall-pages

# META.json has three numbers, as PGXN asks for; test/check holds them against
# the control file's.
DIST = $(EXTENSION)-$(shell sed -n '0,/"version"/s/.*"version": "\(.*\)".*/\1/p' $(SOURCE)/META.json)
.PHONY: dist
dist:
	git -C $(SOURCE) archive --format=zip --prefix=$(DIST)/ HEAD > $(DIST).zip

SUITES = regress isolation tap
.PHONY: coverage
coverage:
	$(SOURCE)/test/coverage --remove
	for suite in $(SUITES); do $(SOURCE)/test/coverage $$suite; done
	$(SOURCE)/test/coverage report
