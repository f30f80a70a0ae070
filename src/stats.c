/*-------------------------------------------------------------------------
 *
 * stats.c
 *		postmark_stats and postmark_stats_reset.
 *
 * src/stats.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "settings/config_store.h"
#include "settings/connector.h"
#include "shared/stats.h"

PG_FUNCTION_INFO_V1(postmark_stats);
PG_FUNCTION_INFO_V1(postmark_stats_reset);

static void
put(ReturnSetInfo *rsinfo, const PmStats *stats, const char *metric,
	double value)
{
	Datum		values[4];
	bool		nulls[4] = {false, false, false, false};

	values[0] = CStringGetTextDatum(stats->name);
	values[1] = CStringGetTextDatum(metric);
	values[2] = Float8GetDatum(value);
	nulls[2] = isnan(value);
	values[3] = TimestampTzGetDatum(stats->since);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* A timing in seconds: how many, their sum, two quantiles, and the buckets */
static void
put_timing(ReturnSetInfo *rsinfo, PmStats *stats, PmTiming timing)
{
	const char *name = pm_timing_names[timing];
	uint64		upto = 0;
	int			b;

	put(rsinfo, stats, psprintf("%s_p50", name),
		pm_stats_quantile(stats, timing, 0.5) / USECS_PER_SEC);
	put(rsinfo, stats, psprintf("%s_p99", name),
		pm_stats_quantile(stats, timing, 0.99) / USECS_PER_SEC);
	put(rsinfo, stats, psprintf("%s_sum", name),
		(double) pg_atomic_read_u64(&stats->total_us[timing]) / USECS_PER_SEC);
	for (b = 0; b < PM_BUCKETS - 1; b++)
	{
		upto += pg_atomic_read_u64(&stats->bucket[timing][b]);
		put(rsinfo, stats,
			psprintf("%s_le_%.6f", name,
					 (double) (UINT64CONST(1) << b) / USECS_PER_SEC),
			(double) upto);
	}
	upto += pg_atomic_read_u64(&stats->bucket[timing][b]);
	put(rsinfo, stats, psprintf("%s_count", name), (double) upto);
}

/*
 * postmark_stats() returns table (connector, metric, value, since)
 *
 * Times are in seconds.  Of connectors of this database; nothing where the
 * library is not preloaded.
 */
Datum
postmark_stats(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const PmConnector *connector;
	int			i;
	int			m;

	InitMaterializedSRF(fcinfo, 0);
	for (i = 0; (connector = pm_connectors(i)) != NULL; i++)
	{
		PmStats    *stats = pm_stats_of(connector->number, connector->name);

		if (stats == NULL)
			continue;
		for (m = 0; m < PM_METRICS; m++)
			put(rsinfo, stats, pm_metric_names[m],
				(double) pg_atomic_read_u64(&stats->count[m]));
		for (m = 0; m < PM_TIMINGS; m++)
			put_timing(rsinfo, stats, m);
	}
	return (Datum) 0;
}

/* postmark_stats_reset() returns void */
Datum
postmark_stats_reset(PG_FUNCTION_ARGS)
{
	pm_stats_reset();
	PG_RETURN_VOID();
}
