/*-------------------------------------------------------------------------
 *
 * message_id.h
 *		The ids of messages.
 *
 * src/queue/message_id.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_MESSAGE_ID_H
#define PM_MESSAGE_ID_H

extern int64 pm_next_message_id(void);
extern int64 pm_session_message_id(void);
extern void pm_set_session_message_id(int64 id);
extern bool pm_message_id_given(void);
extern int64 pm_last_message_id(void);
extern int64 pm_highest_message_id(void);

#endif							/* PM_MESSAGE_ID_H */
