/*-------------------------------------------------------------------------
 *
 * wakeup.h
 *		What a worker is told: which ids were committed, and what else there is to
 *		do.
 *
 * src/shared/wakeup.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_WAKEUP_H
#define PM_WAKEUP_H

/*
 * A range of message ids that one or more transactions committed into the
 * hot table.
 */
typedef struct PmIdRange
{
	int64		low;
	int64		high;
} PmIdRange;

#define PM_MAX_RANGES 64

/* In order, and apart from each other */
typedef struct PmRanges
{
	int			n;
	PmIdRange	range[PM_MAX_RANGES];
} PmRanges;

/* What a worker finds when it is woken. */
#define PM_WAKE_LANE_WORDS	16
#define PM_WAKE_LANE_BITS	(PM_WAKE_LANE_WORDS * 64)

/* Reasons other than messages in the hot table */
#define PM_WAKE_MESSAGES	0x01	/* ranges and lanes say which */
#define PM_WAKE_DEFERRED	0x02	/* postmark_deferred got rows */
#define PM_WAKE_SETTINGS	0x04	/* settings, templates, tokens changed */
#define PM_WAKE_RESCAN		0x08	/* anything may have changed */
#define PM_WAKE_CATALOG		0x10	/* extensions were made or dropped */
#define PM_WAKE_RESUME		0x20	/* postmark_resume: "resumed" says of whom */
#define PM_WAKE_ATTEMPTS	0x40	/* failed attempts are to be stored */
#define PM_WAKE_CODES		0x80	/* there are codes, or keys of messages,
										 * which will expire */
#define PM_WAKE_CLOCK		0x200	/* a stored time lies ahead */
#define PM_WAKE_SUPPRESSED	0x800	/* suppressions changed: counted, but nothing
									 * to wake anybody for */
#define PM_WAKE_CAPTURED	0x400	/* a session has kept messages */
#define PM_WAKE_FEEDBACK	0x100	/* Postmark is to be asked about addresses */

/* PmWakeup.resumed for several connectors */
#define PM_RESUMED_SEVERAL	(-1)

typedef struct PmWakeup
{
	uint32		reasons;
	int			resumed;		/* connector's number, 0: none */
	PmRanges	ranges;
	uint64		lanes[PM_WAKE_LANE_WORDS];
	uint64		changes;		/* set by pm_slot_collect, see there */
} PmWakeup;

#define PM_WAKE_LANE_BIT(lane) ((uint32) (lane) % PM_WAKE_LANE_BITS)


extern void pm_ranges_add(PmRanges *ranges, int64 low, int64 high);
extern void pm_ranges_drop_first(PmRanges *ranges);
extern void pm_resumed_add(int *resumed, int number);

#endif							/* PM_WAKEUP_H */
