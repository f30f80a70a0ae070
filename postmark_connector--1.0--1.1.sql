/* postmark_connector--1.0--1.1.sql */

-- complain if script is sourced in psql rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION postmark_connector UPDATE TO '1.1'" to load this file. \quit

-- Version 1.1. CREATE EXTENSION runs 1.0's script and then this one, so each
-- change stands here alone. The worker and the sessions of a server go on
-- while it runs, with 1.0's objects until it commits.

-- ----------------------------------------------------------------------
-- Settings
-- ----------------------------------------------------------------------

-- ----------------------------------------------------------------------
-- Queue and history
-- ----------------------------------------------------------------------

-- ----------------------------------------------------------------------
-- Codes
-- ----------------------------------------------------------------------

-- ----------------------------------------------------------------------
-- Operations
-- ----------------------------------------------------------------------

-- ----------------------------------------------------------------------
-- Last: an ALTER of a table that 1.0 had, which tells every session to read
-- the extension's version anew
-- ----------------------------------------------------------------------

ALTER TABLE @extschema@.postmark_queue ALTER COLUMN email SET STATISTICS 0;
